//! All functions of the contract, for tests that call each of them.

use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;
use weir_policy::WasmJobPolicy;

use crate::support::*;

/// Each function of the contract: its name in errors and its role.
pub(crate) const CONTRACT_FUNCTIONS: [(&str, Role); 7] = [
    ("batching.plan", Role::Batching),
    ("routing.document", Role::Routing),
    ("routing.page", Role::Routing),
    ("routing.failed", Role::Routing),
    ("chunking.passages", Role::Chunking),
    ("chunking.summarize", Role::Chunking),
    ("progress.observe", Role::Progress),
];

/// Calls a function with sample input and drops its decision.
pub(crate) async fn call_function(job: &WasmJobPolicy, function: &str) -> Result<(), PolicyError> {
    match function {
        "batching.plan" => job.plan_batch(sample_batch_context()).await.map(drop),
        "routing.document" => job.route_document(sample_document_facts()).await.map(drop),
        "routing.page" => job
            .route_page(&sample_document_id(), sample_page(1))
            .await
            .map(drop),
        "routing.failed" => job.choose_failure_action(sample_failure()).await.map(drop),
        "chunking.passages" => job.split_passages(sample_passage_source()).await.map(drop),
        "chunking.summarize" => job.plan_summary(sample_section()).await.map(drop),
        "progress.observe" => job
            .decide_progress_updates(0, sample_document_started_event())
            .await
            .map(drop),
        _ => unreachable!("{function}"),
    }
}

pub(crate) fn failed_function(error: &PolicyError) -> &'static str {
    match error {
        PolicyError::Trap { function, .. }
        | PolicyError::CallTimeout { function, .. }
        | PolicyError::LimitExceeded { function, .. }
        | PolicyError::InvalidDecision { function, .. } => function,
        PolicyError::Unusable { .. } | PolicyError::NoInstanceAvailable { .. } => "",
    }
}
