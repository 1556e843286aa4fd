//! The comparison of a shadow as the API returns it.

use serde::Serialize;
use utoipa::ToSchema;
use weir_core::rollout::Rollout;
use weir_core::shadow::{ShadowStore, ShadowTotals};
use weir_core::{JobId, StorageError, TenantId};

use super::replay::{DecisionTotalsView, DifferenceView};

/// The comparison of a shadow with the real decisions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShadowView {
    /// The revision of the shadow.
    revision: u32,
    /// When it became the shadow, in milliseconds since 1970.
    since_millis: u64,
    /// The number of compared jobs, up to the last 200.
    jobs: u64,
    /// The number of jobs with a decision that differs.
    differing_jobs: u64,
    /// The number of compared decisions.
    decisions: u64,
    /// The number of decisions that differ.
    differing: u64,
    /// The number of calls to capabilities that the job had not made and that therefore had no recorded response.
    missed: u64,
    /// The totals of the real decisions.
    before: DecisionTotalsView,
    /// The totals of the shadow's decisions.
    after: DecisionTotalsView,
    /// The latest decisions that differ.
    examples: Vec<DifferenceExampleView>,
    /// The number of jobs whose comparison failed.
    uncompared: u64,
    /// The reason of the latest failed comparison.
    reason: Option<String>,
}

/// A decision that differs, with its job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DifferenceExampleView {
    /// The id of the job.
    #[schema(value_type = String, format = Uuid)]
    job: JobId,
    /// The decision.
    difference: DifferenceView,
}

/// Returns the comparison of a rollout's shadow; `None` if the rollout has no shadow.
pub(super) async fn load_shadow_view(
    shadow_store: &dyn ShadowStore,
    tenant: &TenantId,
    pipeline: &str,
    rollout: &Rollout,
) -> Result<Option<ShadowView>, StorageError> {
    let Some(shadow) = rollout.shadow else {
        return Ok(None);
    };
    let runs = shadow_store
        .list_shadow_runs(tenant, pipeline, shadow.revision, shadow.since_millis)
        .await?;
    let totals = ShadowTotals::sum_shadow_runs(runs);
    let examples = totals.examples.into_iter();
    Ok(Some(ShadowView {
        revision: shadow.revision,
        since_millis: shadow.since_millis,
        jobs: totals.compared_jobs,
        differing_jobs: totals.differing_jobs,
        decisions: totals.decisions,
        differing: totals.differing_decisions,
        missed: totals.missing_capability_responses,
        before: totals.recorded_totals.into(),
        after: totals.shadow_totals.into(),
        examples: examples
            .map(|(job, difference)| DifferenceExampleView {
                job,
                difference: difference.into(),
            })
            .collect(),
        uncompared: totals.failed_comparisons,
        reason: totals.latest_failure,
    }))
}
