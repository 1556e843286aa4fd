//! Jobs that are cancelled, and engines that are shut down.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};
use weir_core::Stage;
use weir_core::decision::Verdict;
use weir_core::event::EventKind;
use weir_core::ledger::JobState;
use weir_engine::{DocumentEnd, DocumentOutcome};

use crate::fakes::{Fakes, Fault, job};
use crate::flow::{done, follow, pages_done};

#[tokio::test(start_paused = true)]
async fn wherever_a_job_hangs_it_is_cancelled_within_the_grace() {
    for stage in Stage::ALL {
        // Seats enough that what hangs in the store is not in the way of the lines.
        let fakes = Fakes::new()
            .cost(Stage::Read, 10)
            .workers(Stage::Store, 200)
            .faults(move |s, page, _| (s == stage && page >= 10).then_some(Fault::Hang));
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", 100), fakes.document("b.pdf", 100)]));
        sleep(Duration::from_secs(60)).await;
        let cancelled = Instant::now();
        handle.cancel();
        let (events, outcome) = follow(&handle).await;
        assert!(
            cancelled.elapsed() <= Duration::from_millis(1100),
            "{stage}: {:?}",
            cancelled.elapsed()
        );
        assert_eq!(outcome.state, JobState::Cancelled);
        // Whichever document came first to its tenth page has nine done, the other as many as the jam let through.
        let finished = |d: &DocumentOutcome| match d.end {
            DocumentEnd::Cancelled { done } => done,
            _ => panic!("{stage}: {d:?}"),
        };
        assert!(
            outcome.documents.iter().any(|d| finished(d) >= 9),
            "{stage}: {outcome:?}"
        );
        let before = finished(&outcome.documents[0]);
        assert!(matches!(
            events[events.len() - 1].what,
            EventKind::JobEnded {
                state: JobState::Cancelled,
                ..
            }
        ));
        // Nothing of it is left.
        for stage in Stage::ALL {
            assert_eq!(fakes.stages.meter(stage).now(), 0, "{stage}");
        }
        assert_eq!(fakes.stages.images.now(), 0);

        *fakes.stages.faults.lock() = Arc::new(|_, _, _| None);
        let again = engine.start(job([fakes.document("a.pdf", 100)])).wait().await;
        assert_eq!(again.documents[0].end, done(100, before), "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn rasterizing_stops_at_once_and_pages_in_flight_may_end() {
    let fakes = Fakes::new().cost(Stage::Rasterize, 100).cost(Stage::Read, 300);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 100)]));
    sleep(Duration::from_millis(1050)).await;
    let drawn = fakes.stages.meter(Stage::Rasterize).calls();
    handle.cancel();
    let (events, outcome) = follow(&handle).await;
    assert!(fakes.stages.meter(Stage::Rasterize).calls() <= drawn + 1);
    // Three were done when it was cancelled, and a second is enough for three more.
    let pages = pages_done(&events).len();
    assert!((5..=7).contains(&pages), "{pages}");
    let recorded = u32::try_from(pages).unwrap();
    assert_eq!(
        outcome.documents[0].end,
        DocumentEnd::Cancelled { done: recorded }
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_can_be_cancelled_while_it_waits() {
    // For another job with the same document.
    let fakes = Fakes::new().cost(Stage::Read, 60_000);
    let engine = fakes.engine();
    let first = engine.start(job([fakes.document("a.pdf", 10)]));
    sleep(Duration::from_secs(1)).await;
    let second = engine.start(job([fakes.document("a.pdf", 10)]));
    sleep(Duration::from_secs(1)).await;
    second.cancel();
    let outcome = timeout(Duration::from_millis(300), second.wait()).await.unwrap();
    assert_eq!(outcome.documents[0].end, DocumentEnd::Cancelled { done: 0 });
    first.cancel();
    first.wait().await;

    // To try a page again.
    let mut fakes = Fakes::new().faults(|s, _, _| (s == Stage::Embed).then_some(Fault::Page));
    fakes.script.judge = Arc::new(|_| Ok(Verdict::RetryAfter(60_000)));
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 10)]));
    sleep(Duration::from_secs(1)).await;
    handle.cancel();
    timeout(Duration::from_secs(2), handle.wait()).await.unwrap();

    // For a slow component to be shown everything.
    let mut fakes = Fakes::new();
    fakes.script.observing = Duration::from_secs(1);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 200)]));
    sleep(Duration::from_secs(5)).await;
    handle.cancel();
    timeout(Duration::from_secs(3), handle.wait()).await.unwrap();

    // Before it has begun.
    let handle = engine.start(job([fakes.document("b.pdf", 200)]));
    handle.cancel();
    assert_eq!(handle.wait().await.state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_components_are_opened_can_be_stopped() {
    let mut fakes = Fakes::new();
    fakes.script.opening = Duration::from_secs(3600);
    let engine = fakes.engine();
    let documents = ["a.pdf", "b.pdf"].map(|name| fakes.document(name, 10));
    let handle = engine.start(job(documents.clone()));
    sleep(Duration::from_secs(60)).await;
    handle.cancel();
    let (events, outcome) = timeout(Duration::from_secs(1), follow(&handle)).await.unwrap();
    assert_eq!(outcome.state, JobState::Cancelled);
    let ends = outcome.documents.iter().map(|d| &d.end);
    assert!(ends.clone().all(|end| *end == DocumentEnd::Cancelled { done: 0 }));
    let cancelled = |e: &&weir_core::event::Event| matches!(e.what, EventKind::DocumentCancelled { .. });
    assert_eq!((ends.count(), events.iter().filter(cancelled).count()), (2, 2));

    // Suspended, it has not ended, and the next engine takes it up.
    let handle = engine.start(job(documents.clone()));
    sleep(Duration::from_secs(60)).await;
    let stopping = Instant::now();
    engine.suspend(Duration::from_secs(5)).await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(1));
    let outcome = handle.wait().await;
    assert_eq!((outcome.state, outcome.error), (JobState::Running, None));
    assert!(
        outcome
            .documents
            .iter()
            .all(|d| d.end == DocumentEnd::Suspended { done: 0 })
    );
    fakes.script.opening = Duration::ZERO;
    let again = weir_engine::JobSpec {
        id: handle.id(),
        ..job(documents)
    };
    assert_eq!(fakes.engine().start(again).wait().await.state, JobState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_progress_component_that_hangs() {
    let mut fakes = Fakes::new();
    fakes.script.observing = Duration::from_secs(3600);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 10)]));
    sleep(Duration::from_secs(60)).await;
    handle.cancel();
    let outcome = timeout(Duration::from_secs(2), handle.wait()).await.unwrap();
    assert_eq!(outcome.state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_keeps_what_is_done_and_leaves_nothing_running() {
    let fakes = Fakes::new()
        .cost(Stage::Read, 100)
        .faults(|s, page, _| (s == Stage::Store && page == 9).then_some(Fault::Hang));
    let engine = fakes.engine();
    let handles: Vec<_> = ["a.pdf", "b.pdf"]
        .map(|name| engine.start(job([fakes.document(name, 100)])))
        .into();
    sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    engine.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(1100));
    for handle in &handles {
        assert_eq!(handle.wait().await.state, JobState::Cancelled);
        let (events, _) = follow(handle).await;
        assert_eq!(fakes.ledger.log(handle.id()), events);
    }
    assert_eq!(fakes.stages.images.now(), 0);
    fakes.crash();
    assert!(fakes.vectors.points().len() >= 20);

    // With no time at all, jobs are dropped, and whoever waits hears of it.
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 100)]));
    sleep(Duration::from_secs(1)).await;
    engine.shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(handle.wait().await.state, JobState::Running);
    handle.events().for_each(|_| async {}).await;
    assert_eq!(fakes.stages.images.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_changes_nothing_and_a_dropped_engine_everything() {
    let fakes = Fakes::new().cost(Stage::Read, 100);
    let engine = fakes.engine();
    drop(engine.start(job([fakes.document("a.pdf", 10)])));
    sleep(Duration::from_secs(2)).await;
    fakes.assert_whole("a.pdf", 10).await;
    let handle = engine.start(job([fakes.document("b.pdf", 10)]));
    sleep(Duration::from_millis(250)).await;
    drop(engine);
    let outcome = handle.wait().await;
    assert_eq!(outcome.state, JobState::Running);
    assert_eq!(outcome.error.unwrap().kind, "stage-died");
    let calls = fakes.stages.calls();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(fakes.stages.calls(), calls);
}
