//! The API for the audit log of a pipeline: its changes, with their author and time.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_control::Control;
use weir_core::canary_analysis::CanaryEvidence;
use weir_core::revision::{PipelineAuditAction, PipelineAuditRecord};
use weir_core::rollout::RolloutAction;
use weir_core::tenancy::KeyScope;

use super::find_pipeline;
use super::rollout::{JobMetricsView, RolloutView};
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;

/// The maximum and the default number of entries in one response.
const MAX_LIMIT: usize = 200;
const DEFAULT_LIMIT: usize = 50;

/// An entry in the audit log of a pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditLogEntryView {
    /// The number of the entry, from 1.
    seq: u64,
    /// The time of the change, in milliseconds since 1970.
    at_millis: u64,
    /// The public part of the key that made the change; `canary-analysis` for a change by the canary analysis.
    by: String,
    /// The change: `push`, or an action of a rollout.
    action: String,
    /// The revision of the change; null if it has none.
    revision: Option<u32>,
    /// The share of a canary in percent.
    percent: Option<u32>,
    /// The rollout before the change.
    from: Option<RolloutView>,
    /// The rollout after the change.
    to: Option<RolloutView>,
    /// The evidence of the canary analysis, if it made the change.
    evidence: Option<CanaryEvidenceView>,
}

/// The evidence of a canary analysis.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CanaryEvidenceView {
    /// The metrics of the canary's jobs up to the evaluation.
    canary: JobMetricsView,
    /// The metrics of the stable revision's jobs in the same time, up to nine for each job of the canary.
    stable: JobMetricsView,
    /// The reason for the change.
    reason: String,
}

impl From<CanaryEvidence> for CanaryEvidenceView {
    fn from(evidence: CanaryEvidence) -> Self {
        Self {
            canary: evidence.canary.into(),
            stable: evidence.stable.into(),
            reason: evidence.reason,
        }
    }
}

impl From<PipelineAuditRecord> for AuditLogEntryView {
    fn from(record: PipelineAuditRecord) -> Self {
        let (action, revision, percent, from, to) = match record.action {
            PipelineAuditAction::Pushed { revision } => ("push", Some(revision), None, None, None),
            PipelineAuditAction::Changed { change, from, to } => {
                let percent = match change {
                    RolloutAction::Canary { percent, .. } => Some(percent),
                    _ => None,
                };
                let (from, to) = (Some(from.into()), Some(to.into()));
                (change.name(), change.target_revision(), percent, from, to)
            }
        };
        Self {
            seq: record.seq,
            at_millis: record.at_millis,
            by: record.changed_by,
            action: action.to_owned(),
            revision,
            percent,
            from,
            to,
            evidence: record.evidence.map(CanaryEvidenceView::from),
        }
    }
}

/// A part of the audit log of a pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditLogView {
    /// The entries, newest first.
    entries: Vec<AuditLogEntryView>,
    /// The value of `before` for the next entries; null if there are none.
    next: Option<u64>,
}

/// The query parameters of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditLogQuery {
    /// Return only entries before this one.
    #[param(minimum = 1)]
    before: Option<u64>,
    /// The maximum number of entries.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
}

/// List the changes of a pipeline, with their author and time.
#[utoipa::path(get, path = "/v1/pipelines/{name}/history", tag = "pipelines",
    params(("name" = String, Path, description = "Name of the pipeline"), AuditLogQuery),
    responses(
        (status = 200, description = "The audit log", body = AuditLogView),
        (status = 400, description = "A parameter is out of range", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The pipeline does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_audit_log(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
    QueryParams(query): QueryParams<AuditLogQuery>,
) -> Result<Json<AuditLogView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let valid_seqs = 1..=i64::MAX.cast_unsigned();
    if !(1..=MAX_LIMIT).contains(&limit) || query.before.is_some_and(|before| !valid_seqs.contains(&before)) {
        return Err(Problem::invalid_request(format!(
            "limit must be from 1 to {MAX_LIMIT}, and before must be at least 1"
        )));
    }
    find_pipeline(&control, &caller, &name).await?;
    let entries = control
        .tenant_pipelines
        .pipeline_store
        .list_audit_log(caller.tenant_id(), &name, query.before, limit)
        .await?;
    let last = entries.last().map(|entry| entry.seq);
    Ok(Json(AuditLogView {
        next: last.filter(|seq| entries.len() == limit && *seq > 1),
        entries: entries.into_iter().map(AuditLogEntryView::from).collect(),
    }))
}
