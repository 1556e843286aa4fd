//! A fake store of pipelines and of comparisons with shadows.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use weir_core::canary_analysis::{CanaryEvidence, JobSample};
use weir_core::component::{ComponentDigest, ComponentRecord};
use weir_core::ports::Ledger as _;
use weir_core::revision::{
    PipelineAuditAction, PipelineAuditRecord, PipelineRecord, PipelineStore, Revision, RevisionJobOutcome,
    RevisionSpec,
};
use weir_core::rollout::{RevisionAssignment, Rollout, RolloutAction, RolloutError};
use weir_core::shadow::{ShadowRun, ShadowStore};
use weir_core::{JobId, StorageError, TenantId};

use super::fake_store::FakeStore;
use super::pipeline_tables::AssignedJob;

type StoreResult<T> = Result<T, StorageError>;

#[async_trait]
impl PipelineStore for FakeStore {
    async fn put_component_record(&self, record: &ComponentRecord) -> StoreResult<()> {
        self.require_key(&record.pushed_by_key)?;
        let components = &mut self.lock_pipelines().components;
        match components
            .iter_mut()
            .find(|c| (&c.tenant, &c.digest) == (&record.tenant, &record.digest))
        {
            Some(known) => known.name.clone_from(&record.name),
            None => components.push(record.clone()),
        }
        Ok(())
    }

    async fn find_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> StoreResult<Option<ComponentRecord>> {
        let tables = self.lock_pipelines();
        let mut components = tables.components.iter();
        Ok(components
            .find(|c| (&c.tenant, &c.digest) == (tenant, digest))
            .cloned())
    }

    async fn list_components(&self, tenant: &TenantId) -> StoreResult<Vec<ComponentRecord>> {
        let tables = self.lock_pipelines();
        let latest_first = tables.components.iter().rev();
        let own = latest_first.filter(|c| c.tenant == *tenant);
        let mut components: Vec<_> = own.cloned().collect();
        components.sort_by_key(|c| Reverse(c.created_millis));
        Ok(components)
    }

    async fn remove_unused_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> StoreResult<Result<bool, (String, u32)>> {
        let mut tables = self.lock_pipelines();
        let names = |r: &&Revision| r.tenant == *tenant && r.spec.components.values().any(|d| d == digest);
        if let Some(user) = tables.revisions.iter().find(names) {
            return Ok(Err((user.pipeline.clone(), user.number)));
        }
        let before = tables.components.len();
        tables
            .components
            .retain(|c| (&c.tenant, &c.digest) != (tenant, digest));
        Ok(Ok(tables.components.len() < before))
    }

    async fn add_revision_if_changed(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision_spec: &RevisionSpec,
        by: &str,
        now_millis: u64,
    ) -> StoreResult<Result<Revision, ComponentDigest>> {
        self.require_key(by)?;
        let mut tables = self.lock_pipelines();
        let is_stored = |digest: &ComponentDigest| {
            let mut components = tables.components.iter();
            components.any(|c| (&c.tenant, &c.digest) == (tenant, digest))
        };
        let mut digests = revision_spec.components.values();
        if let Some(missing) = digests.find(|digest| !is_stored(digest)) {
            return Ok(Err(*missing));
        }
        let newest = tables
            .revisions
            .iter()
            .rev()
            .find(|r| (&r.tenant, &*r.pipeline) == (tenant, pipeline));
        let number = match newest {
            Some(newest) if newest.spec == *revision_spec => return Ok(Ok(newest.clone())),
            Some(newest) => newest.number + 1,
            None => 1,
        };
        let revision = Revision {
            tenant: tenant.clone(),
            pipeline: pipeline.to_owned(),
            number,
            spec: revision_spec.clone(),
            created_millis: now_millis,
            pushed_by_key: by.to_owned(),
        };
        tables.revisions.push(revision.clone());
        tables
            .rollouts
            .entry((tenant.clone(), pipeline.to_owned()))
            .or_default();
        let entry = PipelineAuditRecord {
            seq: 0,
            at_millis: now_millis,
            changed_by: by.to_owned(),
            action: PipelineAuditAction::Pushed { revision: number },
            evidence: None,
        };
        tables.append_audit_log(tenant, pipeline, entry);
        Ok(Ok(revision))
    }

    async fn find_revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        number: u32,
    ) -> StoreResult<Option<Revision>> {
        let tables = self.lock_pipelines();
        let mut revisions = tables.revisions.iter();
        Ok(revisions
            .find(|r| (&r.tenant, &*r.pipeline, r.number) == (tenant, pipeline, number))
            .cloned())
    }

    async fn list_revisions(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u32>,
        limit: usize,
    ) -> StoreResult<Vec<Revision>> {
        let tables = self.lock_pipelines();
        let own = tables
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

    async fn list_pipelines(&self, tenant: &TenantId) -> StoreResult<Vec<PipelineRecord>> {
        let tables = self.lock_pipelines();
        let names = tables.rollouts.keys().filter(|(owner, _)| owner == tenant);
        Ok(names
            .filter_map(|(_, name)| tables.pipeline_record(tenant, name))
            .collect())
    }

    async fn find_pipeline(&self, tenant: &TenantId, name: &str) -> StoreResult<Option<PipelineRecord>> {
        Ok(self.lock_pipelines().pipeline_record(tenant, name))
    }

    async fn change_rollout(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        version: Option<u64>,
        change: &RolloutAction,
        by: &str,
        evidence: Option<CanaryEvidence>,
        now_millis: u64,
    ) -> StoreResult<Result<Rollout, RolloutError>> {
        if evidence.is_none() {
            self.require_key(by)?;
        }
        let mut tables = self.lock_pipelines();
        let key = (tenant.clone(), pipeline.to_owned());
        let from = tables.rollouts.get(&key).cloned().unwrap_or_default();
        if version.is_some_and(|version| version != from.version) {
            return Ok(Err(RolloutError::VersionConflict(from.version)));
        }
        let to = match from.apply_action(change, now_millis) {
            Ok(to) => to,
            Err(refused) => return Ok(Err(refused)),
        };
        tables.rollouts.insert(key, to.clone());
        let entry = PipelineAuditRecord {
            seq: 0,
            at_millis: now_millis,
            changed_by: by.to_owned(),
            action: PipelineAuditAction::Changed {
                change: *change,
                from,
                to: to.clone(),
            },
            evidence,
        };
        tables.append_audit_log(tenant, pipeline, entry);
        Ok(Ok(to))
    }

    async fn list_audit_log(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u64>,
        limit: usize,
    ) -> StoreResult<Vec<PipelineAuditRecord>> {
        let tables = self.lock_pipelines();
        let entries = tables.audit_log.get(&(tenant.clone(), pipeline.to_owned()));
        let newest = entries.into_iter().flatten().rev();
        Ok(newest
            .filter(|e| before.is_none_or(|b| e.seq < b))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn assign_revision_to_job(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        job: &JobId,
    ) -> StoreResult<Option<RevisionAssignment>> {
        let mut tables = self.lock_pipelines();
        if let Some(assigned) = tables.assigned_jobs.get(&(tenant.clone(), *job)) {
            return Ok(Some(assigned.assignment));
        }
        let rollout = tables.rollouts.get(&(tenant.clone(), pipeline.to_owned()));
        let Some(assignment) = rollout.and_then(|rollout| rollout.assign_job(job)) else {
            return Ok(None);
        };
        let assigned = AssignedJob {
            pipeline: pipeline.to_owned(),
            assignment,
            outcome: None,
        };
        tables.assigned_jobs.insert((tenant.clone(), *job), assigned);
        Ok(Some(assignment))
    }

    async fn find_assigned_revision_of_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> StoreResult<Option<RevisionAssignment>> {
        let tables = self.lock_pipelines();
        Ok(tables
            .assigned_jobs
            .get(&(tenant.clone(), *job))
            .map(|assigned| assigned.assignment))
    }

    async fn record_job_outcome(&self, outcome: &RevisionJobOutcome) -> StoreResult<()> {
        let mut tables = self.lock_pipelines();
        if let Some(assigned) = tables
            .assigned_jobs
            .get_mut(&(outcome.tenant.clone(), outcome.job))
        {
            assigned.outcome.get_or_insert_with(|| outcome.clone());
        }
        Ok(())
    }

    async fn sample_ended_jobs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        within_millis: RangeInclusive<u64>,
        jobs: u32,
    ) -> StoreResult<Vec<JobSample>> {
        let tables = self.lock_pipelines();
        let assigned_jobs = tables.assigned_jobs.iter().filter(|((owner, _), assigned)| {
            (owner, &*assigned.pipeline, assigned.assignment.revision) == (tenant, pipeline, revision)
        });
        let mut ended: Vec<&RevisionJobOutcome> = assigned_jobs
            .filter_map(|(_, assigned)| assigned.outcome.as_ref())
            .collect();
        ended.retain(|job| within_millis.contains(&job.ended_at_millis));
        ended.sort_by_key(|job| (job.ended_at_millis, job.job));
        let (all, jobs) = (ended.len(), jobs as usize);
        let is_in_sample = |index: &usize| all <= jobs || (index + 1) * jobs / all > index * jobs / all;
        let samples = (0..all).filter(is_in_sample).map(|index| JobSample {
            ended_at_millis: ended[index].ended_at_millis,
            metrics: ended[index].metrics,
        });
        Ok(samples.collect())
    }
}

#[async_trait]
impl ShadowStore for FakeStore {
    async fn put_shadow_run(&self, run: &ShadowRun) -> Result<(), StorageError> {
        let job_exists = self.find_job(&run.tenant, &run.job).await?.is_some();
        let mut tables = self.lock_pipelines();
        if job_exists && !self.job_has_erased_document(&run.tenant, &run.job) {
            tables.put_shadow_run(run);
        }
        Ok(())
    }

    async fn list_shadow_runs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        since_millis: u64,
    ) -> Result<Vec<ShadowRun>, StorageError> {
        let tables = self.lock_pipelines();
        let runs = tables.shadow_runs.iter().filter(|run| {
            (&run.tenant, run.pipeline.as_str(), run.revision) == (tenant, pipeline, revision)
                && run.compared_at_millis >= since_millis
        });
        let mut runs: Vec<_> = runs.cloned().collect();
        runs.sort_by_key(|run| Reverse(run.job));
        Ok(runs)
    }
}
