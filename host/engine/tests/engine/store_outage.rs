//! Stores on other machines that do not respond for a while.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_core::event::EventKind;
use weir_core::ledger::JobState;
use weir_core::{PageNumber, Stage};

use crate::document_ingestion::done_end;
use crate::fakes::{FakeHost, InjectedFault, single_tenant_job};

/// The pages of the job's events of this kind, and how many events there are.
fn count_done_pages(fakes: &FakeHost, job: weir_core::JobId) -> (usize, usize) {
    let events = fakes.ledger.job_events(job);
    let pages: Vec<PageNumber> = events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::PageDone { page, .. } => Some(page),
            _ => None,
        })
        .collect();
    (pages.iter().collect::<BTreeSet<_>>().len(), pages.len())
}

#[tokio::test(start_paused = true)]
async fn pages_wait_for_blobs_and_index_without_using_up_attempts() {
    for stage in [Stage::Store, Stage::Upsert] {
        // More failures than the attempts that a page has in a stage.
        let fakes = FakeHost::new().with_faults(move |at, page, attempt| {
            (at == stage && page % 7 == 0 && attempt <= 12).then_some(InjectedFault::Unavailable)
        });
        let engine = fakes.build_engine();
        let spec = single_tenant_job([fakes.document_spec("a.pdf", 40)]);
        let job = spec.id;
        let handle = engine.start_or_resume_job(spec);
        let outcome = handle.await_outcome().await;
        assert_eq!(outcome.state, JobState::Done, "{stage}: {outcome:?}");
        assert_eq!(outcome.documents[0].end, done_end(40, 0), "{stage}");
        assert_eq!(count_done_pages(&fakes, job), (40, 40), "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn running_job_goes_on_when_the_ledger_is_back() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    let engine = fakes.build_engine();
    let spec = single_tenant_job([fakes.document_spec("a.pdf", 300)]);
    let job = spec.id;
    let handle = engine.start_or_resume_job(spec);
    sleep(Duration::from_secs(3)).await;
    fakes.ledger.is_unavailable.store(true, Ordering::SeqCst);
    let late = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("b.pdf", 10)]));
    sleep(Duration::from_secs(60)).await;
    let (recorded, _) = count_done_pages(&fakes, job);
    assert!(recorded < 300, "{recorded}");
    fakes.ledger.is_unavailable.store(false, Ordering::SeqCst);
    assert_eq!(handle.await_outcome().await.state, JobState::Done);
    assert_eq!(late.await_outcome().await.state, JobState::Done);
    assert_eq!(count_done_pages(&fakes, job), (300, 300));
}

#[tokio::test(start_paused = true)]
async fn engine_stops_while_the_ledger_is_unavailable() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    let engine = fakes.build_engine();
    let spec = single_tenant_job([fakes.document_spec("a.pdf", 300)]);
    let job = spec.id;
    engine.start_or_resume_job(spec.clone());
    sleep(Duration::from_secs(3)).await;
    fakes.ledger.is_unavailable.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    let stopped = engine.suspend_jobs_and_shutdown(Duration::from_secs(5)).await;
    assert!(
        began.elapsed() <= Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(stopped.unwrap_err().kind(), "storage-unavailable");

    fakes.ledger.is_unavailable.store(false, Ordering::SeqCst);
    let engine = fakes.build_engine();
    let outcome = engine.start_or_resume_job(spec).await_outcome().await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(count_done_pages(&fakes, job), (300, 300));
}
