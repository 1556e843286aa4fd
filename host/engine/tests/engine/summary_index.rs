//! The lifetime and the labels of summaries in the index.

use std::sync::Arc;

use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::VectorStore as _;
use weir_core::search::SearchQuery;
use weir_engine::JobSpec;

use crate::fakes::{FakeHost, single_tenant_job, test_pipeline};
use crate::summaries::{QuotingModel, build_router, host_with_chapters, load_summary, summarizing_job};

/// Counts the section summaries in the index.
fn count_indexed_summaries(fakes: &FakeHost) -> usize {
    fakes
        .vectors
        .sorted_points()
        .iter()
        .filter(|point| point.is_summary())
        .count()
}

#[tokio::test(start_paused = true)]
async fn summaries_are_removed_with_their_revision() {
    let mut fakes = host_with_chapters(0, |_| 1);
    fakes.language_model = Some(Arc::new(build_router(&[QuotingModel::new(|_| 1.0)])));
    let engine = fakes.build_engine();
    engine
        .start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 4)]))
        .await_outcome()
        .await;
    assert_eq!(count_indexed_summaries(&fakes), 4);

    // With `force` the pages get the same results again, so their summaries stay valid.
    let forced = JobSpec {
        force: true,
        ..single_tenant_job([fakes.document_spec("a.pdf", 4)])
    };
    engine.start_or_resume_job(forced).await_outcome().await;
    assert_eq!(count_indexed_summaries(&fakes), 4);

    let other = JobSpec {
        pipeline: test_pipeline(1),
        ..single_tenant_job([fakes.document_spec("a.pdf", 4)])
    };
    let outcome = engine.start_or_resume_job(other).await_outcome().await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(count_indexed_summaries(&fakes), 0);
    assert_eq!(load_summary(&fakes, "a.pdf").await, None);

    // With the first revision the summaries are created again.
    engine
        .start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 4)]))
        .await_outcome()
        .await;
    assert_eq!(count_indexed_summaries(&fakes), 4);
    assert!(load_summary(&fakes, "a.pdf").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn summary_covers_pages_that_a_later_job_adds() {
    let mut fakes = host_with_chapters(0, |_| 1);
    fakes.language_model = Some(Arc::new(build_router(&[QuotingModel::new(|_| 1.0)])));
    let engine = fakes.build_engine();
    let mut part = fakes.document_spec("a.pdf", 4);
    part.pages = Some(1..=2);
    engine
        .start_or_resume_job(summarizing_job([part]))
        .await_outcome()
        .await;
    engine
        .start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 4)]))
        .await_outcome()
        .await;
    assert_eq!(load_summary(&fakes, "a.pdf").await.unwrap().sections.len(), 4);
    assert_eq!(count_indexed_summaries(&fakes), 4);
}

#[tokio::test(start_paused = true)]
async fn summaries_carry_the_labels_of_their_document() {
    let mut fakes = host_with_chapters(0, |_| 1);
    fakes.script.labels = vec![("team".into(), "north".into())];
    fakes.language_model = Some(Arc::new(build_router(&[QuotingModel::new(|_| 1.0)])));
    let engine = fakes.build_engine();
    engine
        .start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 2)]))
        .await_outcome()
        .await;
    let query = SearchQuery {
        query_text: String::new(),
        dense_vector: Vec::new(),
        top_k: 100,
        documents: Vec::new(),
        collection: None,
        labels: vec![("team".into(), "north".into())],
    };
    let hits = fakes
        .vectors
        .search_by_vector_and_words(&TenantId::default_tenant(), &query)
        .await
        .unwrap();
    assert_eq!(hits.iter().filter(|hit| hit.summary).count(), 2);
}
