//! The API for pipelines of tenants: components, revisions, rollouts and replays.

mod audit_log;
mod components;
mod replay;
mod revision_body;
mod revisions;
mod rollout;
mod shadow_view;
#[cfg(test)]
mod tests;

use weir_control::Control;
use weir_core::revision::PipelineRecord;

use crate::auth::Caller;
use crate::problem::Problem;

pub(crate) use audit_log::{__path_list_audit_log, list_audit_log};
pub(crate) use components::{
    __path_get_component, __path_list_components, __path_push_component, __path_remove_component,
    get_component, list_components, push_component, remove_component,
};
pub(crate) use replay::{__path_replay_job, replay_job};
pub(crate) use revisions::{
    __path_get_pipeline, __path_get_revision, __path_list_pipelines, __path_list_revisions,
    __path_push_revision, get_pipeline, get_revision, list_pipelines, list_revisions, push_revision,
};
pub(crate) use rollout::{__path_change_rollout, __path_get_rollout, change_rollout, get_rollout};

/// Returns the tenant's pipeline of this name, or a problem if it does not exist.
async fn find_pipeline(control: &Control, caller: &Caller, name: &str) -> Result<PipelineRecord, Problem> {
    let record = control
        .tenant_pipelines
        .pipeline_store
        .find_pipeline(caller.tenant_id(), name)
        .await?;
    record.ok_or_else(|| {
        Problem::not_found(format!(
            "pipeline '{name}' does not exist: push a revision to create it"
        ))
    })
}
