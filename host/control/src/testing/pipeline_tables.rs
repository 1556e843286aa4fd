//! The tables of the fake pipeline store.

use std::collections::{BTreeMap, HashMap};

use weir_core::component::ComponentRecord;
use weir_core::revision::{PipelineAuditRecord, PipelineRecord, Revision, RevisionJobOutcome};
use weir_core::rollout::{RevisionAssignment, Rollout};
use weir_core::shadow::ShadowRun;
use weir_core::{JobId, TenantId};

/// The tables of the fake pipeline store.
#[derive(Default)]
pub(crate) struct PipelineTables {
    pub(super) components: Vec<ComponentRecord>,
    pub(super) revisions: Vec<Revision>,
    pub(super) rollouts: BTreeMap<(TenantId, String), Rollout>,
    pub(super) audit_log: HashMap<(TenantId, String), Vec<PipelineAuditRecord>>,
    pub(super) assigned_jobs: HashMap<(TenantId, JobId), AssignedJob>,
    pub(crate) shadow_runs: Vec<ShadowRun>,
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
        entry.seq = history.len() as u64 + 1;
        history.push(entry);
    }
}
