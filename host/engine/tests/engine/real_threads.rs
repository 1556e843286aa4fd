//! Tests on real threads and the real clock, where tasks run in parallel.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use weir_core::Stage;
use weir_core::decision::FailureAction;
use weir_core::ledger::JobState;

use crate::document_ingestion::{collect_events, done_end};
use crate::fakes::{FakeHost, InjectedFault, single_tenant_job};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn documents_with_retried_failures_are_complete() {
    // Every seventh page fails once in some stage.
    let faults = |stage: Stage, page: u32, attempt| {
        (page.is_multiple_of(7) && page as usize % Stage::ALL.len() == stage as usize && attempt == 1)
            .then_some(InjectedFault::Page)
    };
    let mut fakes = FakeHost::new()
        .with_workers(Stage::Rasterize, 4)
        .with_workers(Stage::Read, 3)
        .with_workers(Stage::Embed, 2)
        .with_faults(faults);
    fakes.script.on_failure = Arc::new(|_| Ok(FailureAction::RetryAfter(1)));
    fakes.config.max_active_documents = 4;
    let engine = fakes.build_engine();
    let names: Vec<_> = (0..8).map(|i| format!("{i}.pdf")).collect();
    let handle = engine.start_or_resume_job(single_tenant_job(
        names.iter().map(|name| fakes.document_spec(name, 50)),
    ));
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    assert!(
        outcome.documents.iter().all(|d| d.end == done_end(50, 0)),
        "{outcome:?}"
    );
    assert!(events.iter().map(|e| e.seq).eq(1..=events.len() as u64));
    assert_eq!(fakes.ledger.job_events(handle.id()), events);
    assert_eq!(fakes.vectors.sorted_points().len(), 8 * 50 * 2);
    assert_eq!(fakes.blobs.keys().len(), 8 * 50 * 2);
    assert_eq!(fakes.stages.live_images.in_flight(), 0);
    engine
        .cancel_jobs_and_shutdown(Duration::from_secs(5))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn document_cancelled_repeatedly_is_complete_in_the_end() {
    let fakes = FakeHost::new()
        .with_workers(Stage::Rasterize, 3)
        .with_cost(Stage::Rasterize, 1)
        .with_cost(Stage::Read, 1)
        .with_cost(Stage::Upsert, 1);
    for millis in [1, 5, 10, 20, 30] {
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)]));
        sleep(Duration::from_millis(millis)).await;
        if millis % 10 == 0 {
            // Like a crash, except that threads finish their current poll.
            drop(engine);
        } else {
            handle.cancel_job();
            handle.await_outcome().await;
        }
    }
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)]))
        .await_outcome()
        .await;
    assert_eq!(outcome.state, JobState::Done);
    fakes.assert_document_complete("a.pdf", 100).await;
}
