//! Cancellation of jobs and shutdown of engines.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};
use weir_core::Stage;
use weir_core::decision::FailureAction;
use weir_core::event::EventKind;
use weir_core::ledger::JobState;
use weir_engine::{DocumentEndState, DocumentOutcome};

use crate::document_ingestion::{collect_events, done_end, page_done_times};
use crate::fakes::{FakeHost, InjectedFault, single_tenant_job};

#[tokio::test(start_paused = true)]
async fn job_that_hangs_in_any_stage_is_cancelled_within_the_grace() {
    for stage in Stage::ALL {
        // Enough store workers that hanging images do not block the lines.
        let fakes = FakeHost::new()
            .with_cost(Stage::Read, 10)
            .with_workers(Stage::Store, 200)
            .with_faults(move |s, page, _| (s == stage && page >= 10).then_some(InjectedFault::Hang));
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([
            fakes.document_spec("a.pdf", 100),
            fakes.document_spec("b.pdf", 100),
        ]));
        sleep(Duration::from_secs(60)).await;
        let cancelled = Instant::now();
        handle.cancel_job();
        let (events, outcome) = collect_events(&handle).await;
        assert!(
            cancelled.elapsed() <= Duration::from_millis(1100),
            "{stage}: {:?}",
            cancelled.elapsed()
        );
        assert_eq!(outcome.state, JobState::Cancelled);
        // The document that reached its tenth page first has nine pages done. The other has as many as got through before.
        let finished = |d: &DocumentOutcome| match d.end {
            DocumentEndState::Cancelled { done } => done,
            _ => panic!("{stage}: {d:?}"),
        };
        assert!(
            outcome.documents.iter().any(|d| finished(d) >= 9),
            "{stage}: {outcome:?}"
        );
        let before = finished(&outcome.documents[0]);
        assert!(matches!(
            events[events.len() - 1].kind,
            EventKind::JobEnded {
                state: JobState::Cancelled,
                ..
            }
        ));
        // No call is left in flight.
        for stage in Stage::ALL {
            assert_eq!(fakes.stages.call_counter(stage).in_flight(), 0, "{stage}");
        }
        assert_eq!(fakes.stages.live_images.in_flight(), 0);

        *fakes.stages.faults.lock() = Arc::new(|_, _, _| None);
        let again = engine
            .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)]))
            .await_outcome()
            .await;
        assert_eq!(again.documents[0].end, done_end(100, before), "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn rasterizing_stops_at_once_and_pages_in_flight_may_end() {
    let fakes = FakeHost::new()
        .with_cost(Stage::Rasterize, 100)
        .with_cost(Stage::Read, 300);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)]));
    sleep(Duration::from_millis(1050)).await;
    let drawn = fakes.stages.call_counter(Stage::Rasterize).call_count();
    handle.cancel_job();
    let (events, outcome) = collect_events(&handle).await;
    assert!(fakes.stages.call_counter(Stage::Rasterize).call_count() <= drawn + 1);
    // Three pages were done at the cancellation, and a second is enough for three more.
    let pages = page_done_times(&events).len();
    assert!((5..=7).contains(&pages), "{pages}");
    let recorded = u32::try_from(pages).unwrap();
    assert_eq!(
        outcome.documents[0].end,
        DocumentEndState::Cancelled { done: recorded }
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_can_be_cancelled_while_it_waits() {
    // The job waits for another job with the same document.
    let fakes = FakeHost::new().with_cost(Stage::Read, 60_000);
    let engine = fakes.build_engine();
    let first = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]));
    sleep(Duration::from_secs(1)).await;
    let second = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]));
    sleep(Duration::from_secs(1)).await;
    second.cancel_job();
    let outcome = timeout(Duration::from_millis(300), second.await_outcome())
        .await
        .unwrap();
    assert_eq!(outcome.documents[0].end, DocumentEndState::Cancelled { done: 0 });
    first.cancel_job();
    first.await_outcome().await;

    // The job waits to retry a page.
    let mut fakes = FakeHost::new().with_faults(|s, _, _| (s == Stage::Embed).then_some(InjectedFault::Page));
    fakes.script.on_failure = Arc::new(|_| Ok(FailureAction::RetryAfter(60_000)));
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]));
    sleep(Duration::from_secs(1)).await;
    handle.cancel_job();
    timeout(Duration::from_secs(2), handle.await_outcome())
        .await
        .unwrap();

    // The job waits for a slow progress component.
    let mut fakes = FakeHost::new();
    fakes.script.observe_delay = Duration::from_secs(1);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 200)]));
    sleep(Duration::from_secs(5)).await;
    handle.cancel_job();
    timeout(Duration::from_secs(3), handle.await_outcome())
        .await
        .unwrap();

    // The job is cancelled before it starts.
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("b.pdf", 200)]));
    handle.cancel_job();
    assert_eq!(handle.await_outcome().await.state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn job_can_be_stopped_while_its_components_open() {
    let mut fakes = FakeHost::new();
    fakes.script.open_delay = Duration::from_secs(3600);
    let engine = fakes.build_engine();
    let documents = ["a.pdf", "b.pdf"].map(|name| fakes.document_spec(name, 10));
    let handle = engine.start_or_resume_job(single_tenant_job(documents.clone()));
    sleep(Duration::from_secs(60)).await;
    handle.cancel_job();
    let (events, outcome) = timeout(Duration::from_secs(1), collect_events(&handle))
        .await
        .unwrap();
    assert_eq!(outcome.state, JobState::Cancelled);
    let ends = outcome.documents.iter().map(|d| &d.end);
    assert!(
        ends.clone()
            .all(|end| *end == DocumentEndState::Cancelled { done: 0 })
    );
    let cancelled = |e: &&weir_core::event::Event| matches!(e.kind, EventKind::DocumentCancelled { .. });
    assert_eq!((ends.count(), events.iter().filter(cancelled).count()), (2, 2));

    // A suspended job has not ended, and the next engine resumes it.
    let handle = engine.start_or_resume_job(single_tenant_job(documents.clone()));
    sleep(Duration::from_secs(60)).await;
    let stopping = Instant::now();
    engine
        .suspend_jobs_and_shutdown(Duration::from_secs(5))
        .await
        .unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(1));
    let outcome = handle.await_outcome().await;
    assert_eq!((outcome.state, outcome.error), (JobState::Running, None));
    assert!(
        outcome
            .documents
            .iter()
            .all(|d| d.end == DocumentEndState::Suspended { done: 0 })
    );
    fakes.script.open_delay = Duration::ZERO;
    let again = weir_engine::JobSpec {
        id: handle.id(),
        ..single_tenant_job(documents)
    };
    assert_eq!(
        fakes
            .build_engine()
            .start_or_resume_job(again)
            .await_outcome()
            .await
            .state,
        JobState::Done
    );
}

#[tokio::test(start_paused = true)]
async fn job_with_a_hanging_progress_component_can_be_cancelled() {
    let mut fakes = FakeHost::new();
    fakes.script.observe_delay = Duration::from_secs(3600);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]));
    sleep(Duration::from_secs(60)).await;
    handle.cancel_job();
    let outcome = timeout(Duration::from_secs(2), handle.await_outcome())
        .await
        .unwrap();
    assert_eq!(outcome.state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn shutdown_keeps_finished_pages_and_leaves_nothing_running() {
    let fakes = FakeHost::new()
        .with_cost(Stage::Read, 100)
        .with_faults(|s, page, _| (s == Stage::Store && page == 9).then_some(InjectedFault::Hang));
    let engine = fakes.build_engine();
    let handles: Vec<_> = ["a.pdf", "b.pdf"]
        .map(|name| engine.start_or_resume_job(single_tenant_job([fakes.document_spec(name, 100)])))
        .into();
    sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    engine
        .cancel_jobs_and_shutdown(Duration::from_secs(5))
        .await
        .unwrap();
    assert!(began.elapsed() <= Duration::from_millis(1100));
    for handle in &handles {
        assert_eq!(handle.await_outcome().await.state, JobState::Cancelled);
        let (events, _) = collect_events(handle).await;
        assert_eq!(fakes.ledger.job_events(handle.id()), events);
    }
    assert_eq!(fakes.stages.live_images.in_flight(), 0);
    fakes.simulate_power_cut();
    assert!(fakes.vectors.sorted_points().len() >= 20);

    // Without a grace period, jobs are dropped, and their handles get that outcome.
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)]));
    sleep(Duration::from_secs(1)).await;
    engine.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(handle.await_outcome().await.state, JobState::Running);
    handle.stream_events().for_each(|_| async {}).await;
    assert_eq!(fakes.stages.live_images.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_handle_changes_nothing_and_dropped_engine_stops_jobs() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    let engine = fakes.build_engine();
    drop(engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)])));
    sleep(Duration::from_secs(2)).await;
    fakes.assert_document_complete("a.pdf", 10).await;
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("b.pdf", 10)]));
    sleep(Duration::from_millis(250)).await;
    drop(engine);
    let outcome = handle.await_outcome().await;
    assert_eq!(outcome.state, JobState::Running);
    assert_eq!(outcome.error.unwrap().kind, "stage-died");
    let calls = fakes.stages.total_calls();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(fakes.stages.total_calls(), calls);
}
