//! Components that answer what cannot be followed.

use std::sync::Arc;

use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;

use crate::asking::{ask, function_of};
use crate::support::*;

/// For each kind of nonsense: who answers it, to what, and a word of the reason.
const NONSENSE: &[(&str, &str, &str, &str)] = &[
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

fn role(name: &str) -> Role {
    Role::ALL.into_iter().find(|role| role.name() == name).unwrap()
}

#[tokio::test]
async fn nonsense_is_refused_with_its_reason() {
    let host = host();
    for &(name, kind, function, word) in NONSENSE {
        let mut pipeline = only(&[role(name)], &component(&format!("hostile-nonsense-{name}")));
        pipeline.manifest.settings.insert("nonsense".into(), kind.into());
        let port = Arc::new(Port::default());
        let job = open(&host, &pipeline, &port).await.unwrap();
        let before = host.stats().instances;
        let error = ask(&job, function).await.unwrap_err();
        let PolicyError::Nonsense { reason, .. } = &error else {
            panic!("{name} {kind}: {error}");
        };
        assert!(reason.contains(word), "{name} {kind}: {reason}");
        assert_eq!(function_of(&error), function);
        // The instance did return, so it is kept.
        assert_eq!(ask(&job, function).await.unwrap_err(), error);
        assert_eq!(host.stats().instances, before);
        assert_eq!(job.stats().nonsense, 2);
    }
}

#[tokio::test]
async fn the_default_answers_in_place_of_nonsense() {
    let host = host();
    let port = Arc::new(Port::default());
    let own = [(Role::Batching, "hostile-nonsense-batching")];
    let job = open(&host, &pipeline("[settings]\nnonsense = 'no-pages'", &own), &port)
        .await
        .unwrap();
    assert!(job.plan(situation()).await.unwrap().pages >= 1);
    assert_eq!(port.failed.lock()[0].kind(), "component-nonsense");
}

#[tokio::test]
async fn what_a_user_is_told_is_cut_to_what_fits() {
    let host = host();
    for (kind, count, message) in [
        ("long-message", 1, "a".repeat(500)),
        ("control", 1, "[2J".into()),
        ("many", 16, "on its way".into()),
    ] {
        let mut pipeline = only(&[Role::Progress], &component("hostile-nonsense-progress"));
        pipeline.manifest.settings.insert("nonsense".into(), kind.into());
        let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();
        let updates = job.observe(0, started()).await.unwrap();
        assert_eq!(updates.len(), count, "{kind}");
        assert_eq!(updates[0].message, message, "{kind}");
    }
}
