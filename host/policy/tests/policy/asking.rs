//! Every function of every role, by number, for tests that do the same to each.

use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;
use weir_policy::Job;

use crate::support::*;

/// A function of the contract: its name in errors, and its role.
pub(crate) const FUNCTIONS: [(&str, Role); 7] = [
    ("batching.plan", Role::Batching),
    ("routing.document", Role::Routing),
    ("routing.page", Role::Routing),
    ("routing.failed", Role::Routing),
    ("chunking.passages", Role::Chunking),
    ("chunking.summarize", Role::Chunking),
    ("progress.observe", Role::Progress),
];

/// Asks one; of the answer only whether there is one.
pub(crate) async fn ask(job: &Job, function: &str) -> Result<(), PolicyError> {
    match function {
        "batching.plan" => job.plan(situation()).await.map(drop),
        "routing.document" => job.route_document(facts()).await.map(drop),
        "routing.page" => job.route_page(&document(), page(1)).await.map(drop),
        "routing.failed" => job.judge(failure()).await.map(drop),
        "chunking.passages" => job.passages(source()).await.map(drop),
        "chunking.summarize" => job.summarize(section()).await.map(drop),
        "progress.observe" => job.observe(0, started()).await.map(drop),
        _ => unreachable!("{function}"),
    }
}

pub(crate) fn function_of(error: &PolicyError) -> &'static str {
    match error {
        PolicyError::Trap { function, .. }
        | PolicyError::Deadline { function, .. }
        | PolicyError::Limit { function, .. }
        | PolicyError::Nonsense { function, .. } => function,
        PolicyError::Unusable { .. } | PolicyError::Exhausted { .. } => "",
    }
}
