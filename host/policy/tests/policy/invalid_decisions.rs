//! Components that return invalid decisions.

use std::sync::Arc;

use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;

use crate::contract_functions::{call_function, failed_function};
use crate::support::*;

/// Invalid decisions: the role of the hostile component, its `invalid-decision` setting, the function called, and a part of the
/// reason.
const INVALID_DECISIONS: &[(&str, &str, &str, &str)] = &[
    ("batching", "no-pages", "batching.plan", "pages is 0"),
    ("batching", "many-pages", "batching.plan", "pages"),
    ("batching", "no-dpi", "batching.plan", "dpi is 0"),
    ("batching", "high-dpi", "batching.plan", "dpi"),
    ("batching", "long-linger", "batching.plan", "linger-millis"),
    ("batching", "no-queue", "batching.plan", "queue-capacity"),
    ("routing", "path", "routing.document", "collection"),
    ("routing", "empty-collection", "routing.document", "collection"),
    ("routing", "long-collection", "routing.document", "collection"),
    ("routing", "many-labels", "routing.document", "labels"),
    ("routing", "long-label", "routing.document", "label"),
    ("routing", "unknown-model", "routing.document", "model"),
    ("routing", "embed-unread", "routing.page", "embed"),
    ("routing", "page-labels", "routing.page", "labels"),
    ("routing", "long-retry", "routing.failed", "retry-after"),
    ("chunking", "outside", "chunking.passages", "outside the text"),
    (
        "chunking",
        "inside-a-character",
        "chunking.passages",
        "character boundaries",
    ),
    ("chunking", "inverted", "chunking.passages", "empty"),
    ("chunking", "empty", "chunking.passages", "empty"),
    ("chunking", "unordered", "chunking.passages", "starts before"),
    ("chunking", "many", "chunking.passages", "more than 4096"),
    ("chunking", "no-tokens", "chunking.summarize", "max-tokens"),
    ("chunking", "outside", "chunking.summarize", "outside the text"),
    ("progress", "nan", "progress.observe", "percent"),
    ("progress", "negative", "progress.observe", "percent"),
    ("progress", "beyond", "progress.observe", "percent"),
    ("progress", "infinite", "progress.observe", "percent"),
];

fn parse_role(name: &str) -> Role {
    Role::ALL.into_iter().find(|role| role.name() == name).unwrap()
}

#[tokio::test]
async fn invalid_decisions_are_rejected_with_a_reason() {
    let host = new_host();
    for &(name, kind, function, word) in INVALID_DECISIONS {
        let mut pipeline = single_component_pipeline(
            &[parse_role(name)],
            &built_component(&format!("hostile-invalid-{name}")),
        );
        pipeline
            .manifest
            .settings
            .insert("invalid-decision".into(), kind.into());
        let port = Arc::new(FakeCapabilities::default());
        let job = open_job(&host, &pipeline, &port).await.unwrap();
        let before = host.stats().instances_created;
        let error = call_function(&job, function).await.unwrap_err();
        let PolicyError::InvalidDecision { reason, .. } = &error else {
            panic!("{name} {kind}: {error}");
        };
        assert!(reason.contains(word), "{name} {kind}: {reason}");
        assert_eq!(failed_function(&error), function);
        // The call did return, so the instance is kept.
        assert_eq!(call_function(&job, function).await.unwrap_err(), error);
        assert_eq!(host.stats().instances_created, before);
        assert_eq!(job.stats().invalid_decisions, 2);
    }
}

#[tokio::test]
async fn invalid_decision_falls_back_to_the_default_component() {
    let host = new_host();
    let port = Arc::new(FakeCapabilities::default());
    let own = [(Role::Batching, "hostile-invalid-batching")];
    let job = open_job(
        &host,
        &pipeline_with_components("[settings]\ninvalid-decision = 'no-pages'", &own),
        &port,
    )
    .await
    .unwrap();
    assert!(job.plan_batch(sample_batch_context()).await.unwrap().pages >= 1);
    assert_eq!(port.policy_errors.lock()[0].kind(), "component-invalid-decision");
}

#[tokio::test]
async fn progress_updates_are_cut_to_the_limits() {
    let host = new_host();
    for (kind, count, message) in [
        ("long-message", 1, "a".repeat(500)),
        ("control", 1, "[2J".into()),
        ("many", 16, "on its way".into()),
    ] {
        let mut pipeline =
            single_component_pipeline(&[Role::Progress], &built_component("hostile-invalid-progress"));
        pipeline
            .manifest
            .settings
            .insert("invalid-decision".into(), kind.into());
        let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
            .await
            .unwrap();
        let updates = job
            .decide_progress_updates(0, sample_document_started_event())
            .await
            .unwrap();
        assert_eq!(updates.len(), count, "{kind}");
        assert_eq!(updates[0].message, message, "{kind}");
    }
}
