//! Summaries in the index: how long they stay, and how they are labeled.

use std::sync::Arc;

use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::VectorStore as _;
use weir_core::search::Query;
use weir_engine::JobSpec;

use crate::fakes::{Fakes, job, pipeline};
use crate::summaries::{Model, book, kept, router, summarized};

/// Summaries of sections in the index.
fn indexed_summaries(fakes: &Fakes) -> usize {
    fakes
        .vectors
        .points()
        .iter()
        .filter(|point| point.is_summary())
        .count()
}

#[tokio::test(start_paused = true)]
async fn summaries_are_removed_with_their_revision() {
    let mut fakes = book(0, |_| 1);
    fakes.language = Some(Arc::new(router(&[Model::new(|_| 1.0)])));
    let engine = fakes.engine();
    engine
        .start(summarized([fakes.document("a.pdf", 4)]))
        .wait()
        .await;
    assert_eq!(indexed_summaries(&fakes), 4);

    // By force the pages are done again as they were, and their summaries are still true.
    let forced = JobSpec {
        force: true,
        ..job([fakes.document("a.pdf", 4)])
    };
    engine.start(forced).wait().await;
    assert_eq!(indexed_summaries(&fakes), 4);

    let other = JobSpec {
        pipeline: pipeline(1),
        ..job([fakes.document("a.pdf", 4)])
    };
    let outcome = engine.start(other).wait().await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(indexed_summaries(&fakes), 0);
    assert_eq!(kept(&fakes, "a.pdf").await, None);

    // Back at the first revision they are made again.
    engine
        .start(summarized([fakes.document("a.pdf", 4)]))
        .wait()
        .await;
    assert_eq!(indexed_summaries(&fakes), 4);
    assert!(kept(&fakes, "a.pdf").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn summary_covers_pages_that_a_later_job_adds() {
    let mut fakes = book(0, |_| 1);
    fakes.language = Some(Arc::new(router(&[Model::new(|_| 1.0)])));
    let engine = fakes.engine();
    let mut part = fakes.document("a.pdf", 4);
    part.pages = Some(1..=2);
    engine.start(summarized([part])).wait().await;
    engine
        .start(summarized([fakes.document("a.pdf", 4)]))
        .wait()
        .await;
    assert_eq!(kept(&fakes, "a.pdf").await.unwrap().sections.len(), 4);
    assert_eq!(indexed_summaries(&fakes), 4);
}

#[tokio::test(start_paused = true)]
async fn summaries_carry_the_labels_of_their_document() {
    let mut fakes = book(0, |_| 1);
    fakes.script.labels = vec![("team".into(), "north".into())];
    fakes.language = Some(Arc::new(router(&[Model::new(|_| 1.0)])));
    let engine = fakes.engine();
    engine
        .start(summarized([fakes.document("a.pdf", 2)]))
        .wait()
        .await;
    let query = Query {
        text: String::new(),
        dense: Vec::new(),
        top_k: 100,
        documents: Vec::new(),
        collection: None,
        labels: vec![("team".into(), "north".into())],
    };
    let hits = fakes.vectors.search(&TenantId::single(), &query).await.unwrap();
    assert_eq!(hits.iter().filter(|hit| hit.summary).count(), 2);
}
