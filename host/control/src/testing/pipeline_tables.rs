//! The tables of the fake pipeline store.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_core::component::ComponentRecord;
use weir_core::revision::{PipelineAuditRecord, PipelineRecord, Revision, RevisionJobOutcome};
use weir_core::rollout::{RevisionAssignment, Rollout};
use weir_core::shadow::{MAX_SHADOW_RUNS, ShadowRun};
use weir_core::{JobId, TenantId};

/// The tables of the fake pipeline store.
#[derive(Default)]
pub(crate) struct PipelineTables {
    pub(super) components: Vec<ComponentRecord>,
    pub(super) revisions: Vec<Revision>,
    pub(super) rollouts: BTreeMap<(TenantId, String), Rollout>,
    pub(super) audit_log: HashMap<(TenantId, String), Vec<PipelineAuditRecord>>,
    pub(super) assigned_jobs: HashMap<(TenantId, JobId), AssignedJob>,
    pub(super) shadow_runs: Vec<ShadowRun>,
}

pub(super) struct AssignedJob {
    pub(super) pipeline: String,
    pub(super) assignment: RevisionAssignment,
    pub(super) outcome: Option<RevisionJobOutcome>,
}

impl PipelineTables {
    pub(super) fn pipeline_record(&self, tenant: &TenantId, name: &str) -> Option<PipelineRecord> {
        let rollout = self.rollouts.get(&(tenant.clone(), name.to_owned()))?;
        let own = self
            .revisions
            .iter()
            .filter(|r| (&r.tenant, &*r.pipeline) == (tenant, name));
        Some(PipelineRecord {
            name: name.to_owned(),
            revision_count: u32::try_from(own.count()).unwrap(),
            rollout: rollout.clone(),
        })
    }

    pub(super) fn append_audit_log(&mut self, tenant: &TenantId, name: &str, mut entry: PipelineAuditRecord) {
        let history = self
            .audit_log
            .entry((tenant.clone(), name.to_owned()))
            .or_default();
        entry.seq = history.last().map_or(0, |last| last.seq) + 1;
        history.push(entry);
    }

    /// Writes or replaces a shadow run, and keeps those of the newest jobs of its pipeline.
    pub(super) fn put_shadow_run(&mut self, run: &ShadowRun) {
        let of_pipeline =
            |known: &ShadowRun| (&known.tenant, &known.pipeline) == (&run.tenant, &run.pipeline);
        self.shadow_runs
            .retain(|known| !of_pipeline(known) || known.job != run.job);
        self.shadow_runs.push(run.clone());
        let own_runs = self.shadow_runs.iter().filter(|known| of_pipeline(known));
        let jobs: BTreeSet<JobId> = own_runs.map(|known| known.job).collect();
        if let Some(oldest) = jobs.iter().nth_back(MAX_SHADOW_RUNS as usize - 1) {
            self.shadow_runs
                .retain(|known| !of_pipeline(known) || known.job >= *oldest);
        }
    }

    pub(super) fn remove_shadow_runs_of_jobs(&mut self, tenant: &TenantId, jobs: &BTreeSet<JobId>) {
        self.shadow_runs
            .retain(|run| run.tenant != *tenant || !jobs.contains(&run.job));
    }

    pub(super) fn remove_tenant(&mut self, id: &TenantId) {
        self.components.retain(|component| component.tenant != *id);
        self.revisions.retain(|revision| revision.tenant != *id);
        self.rollouts.retain(|(tenant, _), _| tenant != id);
        self.audit_log.retain(|(tenant, _), _| tenant != id);
        self.assigned_jobs.retain(|(tenant, _), _| tenant != id);
        self.shadow_runs.retain(|run| run.tenant != *id);
    }
}
