//! Components, revisions and rollouts in memory, and a gate that believes what a file says.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use weir_core::component::{ComponentDigest, ComponentFacts, ComponentRecord, ComponentStore, Gate};
use weir_core::judge::{Evidence, Shown};
use weir_core::manifest::{ComponentFile, Pipeline, Role};
use weir_core::replay::{ReplayError, ReplayReport, Replays};
use weir_core::revision::{
    ChangeRecord, History, JobShowing, PipelineBook, PipelineRecord, Recipe, Revision,
};
use weir_core::rollout::{Assignment, Change, ChangeError, Rollout};
use weir_core::shadow::ShadowRun;
use weir_core::{JobId, PolicyError, StorageError, TenantId};

use super::{Memory, Works};

/// What is known of pipelines.
#[derive(Default)]
pub(super) struct Pipelines {
    components: Vec<ComponentRecord>,
    revisions: Vec<Revision>,
    rollouts: BTreeMap<(TenantId, String), Rollout>,
    history: HashMap<(TenantId, String), Vec<ChangeRecord>>,
    given: HashMap<(TenantId, JobId), Given>,
    pub(super) shadow_runs: Vec<ShadowRun>,
}

struct Given {
    pipeline: String,
    assignment: Assignment,
    shown: Option<JobShowing>,
}

impl Pipelines {
    fn record(&self, tenant: &TenantId, name: &str) -> Option<PipelineRecord> {
        let rollout = self.rollouts.get(&(tenant.clone(), name.to_owned()))?;
        let own = self
            .revisions
            .iter()
            .filter(|r| (&r.tenant, &*r.pipeline) == (tenant, name));
        Some(PipelineRecord {
            name: name.to_owned(),
            revisions: u32::try_from(own.count()).unwrap(),
            rollout: rollout.clone(),
        })
    }

    fn note(&mut self, tenant: &TenantId, name: &str, mut entry: ChangeRecord) {
        let history = self.history.entry((tenant.clone(), name.to_owned())).or_default();
        entry.seq = history.len() as u64 + 1;
        history.push(entry);
    }
}

type Stored<T> = Result<T, StorageError>;

#[async_trait]
impl PipelineBook for Memory {
    async fn put_component(&self, record: &ComponentRecord) -> Stored<()> {
        self.require_key(&record.by)?;
        let components = &mut self.pipelines().components;
        match components
            .iter_mut()
            .find(|c| (&c.tenant, &c.digest) == (&record.tenant, &record.digest))
        {
            Some(known) => known.name.clone_from(&record.name),
            None => components.push(record.clone()),
        }
        Ok(())
    }

    async fn component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Stored<Option<ComponentRecord>> {
        let kept = self.pipelines();
        let mut components = kept.components.iter();
        Ok(components
            .find(|c| (&c.tenant, &c.digest) == (tenant, digest))
            .cloned())
    }

    async fn components(&self, tenant: &TenantId) -> Stored<Vec<ComponentRecord>> {
        let kept = self.pipelines();
        Ok(kept
            .components
            .iter()
            .rev()
            .filter(|c| c.tenant == *tenant)
            .cloned()
            .collect())
    }

    async fn forget_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Stored<Result<bool, (String, u32)>> {
        let mut kept = self.pipelines();
        let names = |r: &&Revision| r.tenant == *tenant && r.recipe.components.values().any(|d| d == digest);
        if let Some(user) = kept.revisions.iter().find(names) {
            return Ok(Err((user.pipeline.clone(), user.number)));
        }
        let before = kept.components.len();
        kept.components
            .retain(|c| (&c.tenant, &c.digest) != (tenant, digest));
        Ok(Ok(kept.components.len() < before))
    }

    async fn add_revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        recipe: &Recipe,
        by: &str,
        now_millis: u64,
    ) -> Stored<Result<Revision, ComponentDigest>> {
        self.require_key(by)?;
        let mut kept = self.pipelines();
        let newest = kept
            .revisions
            .iter()
            .rev()
            .find(|r| (&r.tenant, &*r.pipeline) == (tenant, pipeline));
        let number = match newest {
            Some(newest) if newest.recipe == *recipe => return Ok(Ok(newest.clone())),
            Some(newest) => newest.number + 1,
            None => 1,
        };
        let revision = Revision {
            tenant: tenant.clone(),
            pipeline: pipeline.to_owned(),
            number,
            recipe: recipe.clone(),
            created_millis: now_millis,
            by: by.to_owned(),
        };
        kept.revisions.push(revision.clone());
        kept.rollouts
            .entry((tenant.clone(), pipeline.to_owned()))
            .or_default();
        let entry = ChangeRecord {
            seq: 0,
            at_millis: now_millis,
            by: by.to_owned(),
            what: History::Pushed { revision: number },
            evidence: None,
        };
        kept.note(tenant, pipeline, entry);
        Ok(Ok(revision))
    }

    async fn revision(&self, tenant: &TenantId, pipeline: &str, number: u32) -> Stored<Option<Revision>> {
        let kept = self.pipelines();
        let mut revisions = kept.revisions.iter();
        Ok(revisions
            .find(|r| (&r.tenant, &*r.pipeline, r.number) == (tenant, pipeline, number))
            .cloned())
    }

    async fn revisions(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Stored<Vec<Revision>> {
        let kept = self.pipelines();
        let own = kept
            .revisions
            .iter()
            .rev()
            .filter(|r| (&r.tenant, &*r.pipeline) == (tenant, pipeline));
        Ok(own
            .filter(|r| before.is_none_or(|b| r.number < b))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn pipelines(&self, tenant: &TenantId) -> Stored<Vec<PipelineRecord>> {
        let kept = self.pipelines();
        let names = kept.rollouts.keys().filter(|(owner, _)| owner == tenant);
        Ok(names.filter_map(|(_, name)| kept.record(tenant, name)).collect())
    }

    async fn pipeline(&self, tenant: &TenantId, name: &str) -> Stored<Option<PipelineRecord>> {
        Ok(self.pipelines().record(tenant, name))
    }

    async fn change_rollout(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        version: Option<u64>,
        change: &Change,
        by: &str,
        evidence: Option<Evidence>,
        now_millis: u64,
    ) -> Stored<Result<Rollout, ChangeError>> {
        if evidence.is_none() {
            self.require_key(by)?;
        }
        let mut kept = self.pipelines();
        let key = (tenant.clone(), pipeline.to_owned());
        let from = kept.rollouts.get(&key).cloned().unwrap_or_default();
        if version.is_some_and(|version| version != from.version) {
            return Ok(Err(ChangeError::Moved(from.version)));
        }
        let to = match from.change(change, now_millis) {
            Ok(to) => to,
            Err(refused) => return Ok(Err(refused)),
        };
        kept.rollouts.insert(key, to.clone());
        let entry = ChangeRecord {
            seq: 0,
            at_millis: now_millis,
            by: by.to_owned(),
            what: History::Changed {
                change: *change,
                from,
                to: to.clone(),
            },
            evidence,
        };
        kept.note(tenant, pipeline, entry);
        Ok(Ok(to))
    }

    async fn history(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Stored<Vec<ChangeRecord>> {
        let kept = self.pipelines();
        let entries = kept.history.get(&(tenant.clone(), pipeline.to_owned()));
        let newest = entries.into_iter().flatten().rev();
        Ok(newest
            .filter(|e| before.is_none_or(|b| e.seq < b))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn assign(&self, tenant: &TenantId, pipeline: &str, job: &JobId) -> Stored<Option<Assignment>> {
        let mut kept = self.pipelines();
        if let Some(given) = kept.given.get(&(tenant.clone(), *job)) {
            return Ok(Some(given.assignment));
        }
        let rollout = kept.rollouts.get(&(tenant.clone(), pipeline.to_owned()));
        let Some(assignment) = rollout.and_then(|rollout| rollout.assign(job)) else {
            return Ok(None);
        };
        let given = Given {
            pipeline: pipeline.to_owned(),
            assignment,
            shown: None,
        };
        kept.given.insert((tenant.clone(), *job), given);
        Ok(Some(assignment))
    }

    async fn assignment(&self, tenant: &TenantId, job: &JobId) -> Stored<Option<Assignment>> {
        let kept = self.pipelines();
        Ok(kept
            .given
            .get(&(tenant.clone(), *job))
            .map(|given| given.assignment))
    }

    async fn show(&self, showing: &JobShowing) -> Stored<()> {
        let mut kept = self.pipelines();
        if let Some(given) = kept.given.get_mut(&(showing.tenant.clone(), showing.job)) {
            given.shown.get_or_insert_with(|| showing.clone());
        }
        Ok(())
    }

    async fn shown(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        within_millis: RangeInclusive<u64>,
        jobs: u32,
    ) -> Stored<Vec<Shown>> {
        let kept = self.pipelines();
        let given = kept.given.iter().filter(|((owner, _), given)| {
            (owner, &*given.pipeline, given.assignment.revision) == (tenant, pipeline, revision)
        });
        let mut ended: Vec<&JobShowing> = given.filter_map(|(_, given)| given.shown.as_ref()).collect();
        ended.retain(|job| within_millis.contains(&job.at_millis));
        ended.sort_by_key(|job| (job.at_millis, job.job));
        let (all, jobs) = (ended.len(), jobs as usize);
        let kept = |place: &usize| all <= jobs || (place + 1) * jobs / all > place * jobs / all;
        let shown = (0..all).filter(kept).map(|place| Shown {
            at_millis: ended[place].at_millis,
            showing: ended[place].showing,
        });
        Ok(shown.collect())
    }
}

/// Components in one folder.
pub(crate) struct Components {
    folder: PathBuf,
    next: AtomicU64,
}

impl Components {
    pub(crate) fn new(folder: &Path) -> Arc<Self> {
        std::fs::create_dir_all(folder).unwrap();
        Arc::new(Self {
            folder: folder.to_owned(),
            next: AtomicU64::new(0),
        })
    }

    /// Names of all files there are.
    pub(crate) fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

#[async_trait]
impl ComponentStore for Components {
    fn unfinished(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("unfinished-{number}"))
    }

    async fn commit(&self, tenant: &TenantId, unfinished: &Path, digest: &ComponentDigest) -> Stored<()> {
        std::fs::rename(unfinished, self.path(tenant, digest)).map_err(|e| StorageError::io("a file", &e))
    }

    fn path(&self, tenant: &TenantId, digest: &ComponentDigest) -> PathBuf {
        self.folder.join(format!("{tenant}-{digest}"))
    }

    async fn remove(&self, tenant: &TenantId, digest: &ComponentDigest) -> Stored<bool> {
        Ok(std::fs::remove_file(self.path(tenant, digest)).is_ok())
    }

    async fn clear(&self, tenant: &TenantId) -> Stored<()> {
        for name in self.names() {
            if name.starts_with(&format!("{tenant}-")) {
                std::fs::remove_file(self.folder.join(name)).unwrap();
            }
        }
        Ok(())
    }
}

/// A component is a file of text: `routing chunking …`, the roles it has. With `traps` in it, it traps when it is asked.
#[async_trait]
impl Gate for Works {
    async fn inspect(&self, _: &TenantId, file: &ComponentFile) -> Result<ComponentFacts, PolicyError> {
        let text = std::fs::read_to_string(&file.path).unwrap_or_default();
        let has = |role: &Role| text.split(' ').any(|word| word == role.name());
        let roles: Vec<Role> = Role::ALL.into_iter().filter(has).collect();
        if roles.is_empty() {
            return Err(PolicyError::Unusable {
                component: file.name.clone(),
                reason: "it has no role".into(),
            });
        }
        Ok(ComponentFacts {
            roles,
            capabilities: Vec::new(),
        })
    }

    async fn rehearse(&self, _: &TenantId, pipeline: &Pipeline) -> Result<(), PolicyError> {
        for (role, file) in &pipeline.components {
            let text = std::fs::read_to_string(&file.path).unwrap_or_default();
            if !text.contains(role.name()) || text.contains("traps") {
                return Err(PolicyError::Unusable {
                    component: file.name.clone(),
                    reason: format!("it does not decide as {}", role.name()),
                });
            }
        }
        Ok(())
    }
}

/// Jobs that were opened here are recorded, with one decision, which differs under another revision.
#[async_trait]
impl Replays for Works {
    async fn replay(
        &self,
        tenant: &TenantId,
        job: &JobId,
        pipeline: &Pipeline,
    ) -> Result<ReplayReport, ReplayError> {
        self.again.lock().push(pipeline.manifest.limits.memory_bytes);
        let opened = self.opened();
        let ran = opened
            .iter()
            .find(|opened| (&opened.tenant, &opened.job) == (tenant, job));
        let ran = ran.ok_or(ReplayError::NotRecorded(*job))?;
        Ok(ReplayReport {
            decisions: 1,
            differing: u64::from(ran.revision != pipeline.revision),
            ..ReplayReport::default()
        })
    }

    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        self.forget_opened(|opened| opened.tenant == *tenant && jobs.contains(&opened.job));
        Ok(())
    }

    async fn clear_recordings(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.forget_opened(|opened| opened.tenant == *tenant);
        Ok(())
    }
}
