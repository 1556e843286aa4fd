//! Group commit of ledger entries, its failures, and subscribers of events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, sleep};
use weir_core::Stage;
use weir_core::decision::ProgressUpdate;
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_engine::DocumentEndState;

use crate::document_ingestion::{collect_events, done_end};
use crate::fakes::{FakeHost, FakeLedger, single_tenant_job};

#[tokio::test(start_paused = true)]
async fn entries_are_written_in_groups() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 10);
    let engine = fakes.build_engine();
    let began = Instant::now();
    engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 1000)]))
        .await_outcome()
        .await;
    let took = began.elapsed().as_millis() as usize;
    let commits = fakes.ledger.commits.lock().clone();
    // With 100 pages, 100 page events and 25 batch events a second, 100 entries are pending before 250 ms are over.
    let entries: usize = commits.iter().sum();
    assert!(
        commits.len() <= entries / 100 + took / 250 + 3,
        "{} commits of {entries} entries",
        commits.len()
    );
    assert!(commits.iter().all(|n| *n <= 110), "{commits:?}");
    assert!(fakes.vectors.flushes.load(Ordering::SeqCst) as usize <= commits.len());

    // A second run records no page, so it flushes neither blobs nor vectors.
    let flushes = fakes.vectors.flushes.load(Ordering::SeqCst) + fakes.blobs.flushes.load(Ordering::SeqCst);
    engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 1000)]))
        .await_outcome()
        .await;
    let after = fakes.vectors.flushes.load(Ordering::SeqCst) + fakes.blobs.flushes.load(Ordering::SeqCst);
    assert_eq!(after, flushes);
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_slow_document_are_committed_every_250_ms() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 1000);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]));
    sleep(Duration::from_millis(5_400)).await;
    let recorded = fakes
        .ledger
        .list_pages(&TenantId::default_tenant(), &fakes.document_id("a.pdf"), None)
        .await
        .unwrap();
    assert_eq!(recorded.len(), 5);
    handle.cancel_job();
    handle.await_outcome().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_fails_the_jobs_at_once_and_loses_nothing_finished() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 1000)]));
    sleep(Duration::from_secs(5)).await;
    fakes.ledger.is_full.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let outcome = handle.await_outcome().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(outcome.state, JobState::Failed);
    let DocumentEndState::Failed {
        error,
        done: finished,
    } = &outcome.documents[0].end
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.kind, "storage-full");
    assert_eq!(fakes.stages.live_images.in_flight(), 0);

    // A job that starts now fails at once as well.
    let refused = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("b.pdf", 10)]))
        .await_outcome()
        .await;
    assert_eq!(refused.state, JobState::Failed);

    // With free space again, the group commit recovers by itself, and finished pages are recorded.
    fakes.ledger.is_full.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(2)).await;
    let records = fakes
        .ledger
        .list_pages(&TenantId::default_tenant(), &fakes.document_id("a.pdf"), None)
        .await
        .unwrap();
    assert_eq!(records.len(), *finished as usize);
    let (events, _) = collect_events(&handle).await;
    assert_eq!(fakes.ledger.job_events(handle.id()), events);
    let again = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 1000)]))
        .await_outcome()
        .await;
    assert_eq!(again.documents[0].end, done_end(1000, *finished));
    engine.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_reports_a_disk_that_stays_full() {
    let fakes = FakeHost::new();
    let engine = fakes.build_engine();
    fakes.ledger.is_full.store(true, Ordering::SeqCst);
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]))
        .await_outcome()
        .await;
    assert_eq!(outcome.state, JobState::Failed);
    assert_eq!(
        engine
            .cancel_jobs_and_shutdown(Duration::ZERO)
            .await
            .unwrap_err()
            .kind(),
        "storage-full"
    );
}

#[tokio::test(start_paused = true)]
async fn retry_of_a_commit_that_was_written_duplicates_nothing() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    fakes.ledger.false_commit_errors.store(2, Ordering::SeqCst);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 40)]));
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.documents[0].end, done_end(40, 0));
    assert_eq!(fakes.ledger.job_events(handle.id()), events);
    fakes.assert_document_complete("a.pdf", 40).await;
}

#[tokio::test(start_paused = true)]
async fn slow_subscriber_delays_nothing_and_misses_no_event() {
    let fakes = FakeHost::new();
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 3000)]));
    let mut slow = handle.stream_events();
    let first = slow.next().await.unwrap().unwrap();
    assert_eq!(first.seq, 1);
    assert_eq!(handle.await_outcome().await.state, JobState::Done);
    // The log has far more events by now than fit in memory.
    let rest: Vec<Event> = slow.map(|e| e.unwrap()).collect().await;
    let seqs: Vec<_> = rest.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (2..=rest.len() as u64 + 1).collect::<Vec<_>>());
    assert!(rest.len() > 3750);
    assert!(matches!(rest.last().unwrap().kind, EventKind::JobEnded { .. }));

    let late: Vec<_> = handle
        .stream_events_after(3700)
        .map(|e| e.unwrap().seq)
        .collect()
        .await;
    assert_eq!(late, (3701..=rest.len() as u64 + 1).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn progress_component_sees_every_event_in_order() {
    let mut fakes = FakeHost::new();
    let (event_sender, all) = std::sync::mpsc::channel();
    fakes.script.observe = Arc::new(move |event| {
        use weir_core::decision::ObservedEvent as O;
        let (document, percent) = match &event {
            O::DocumentDone { document, .. } => (*document, 100.0),
            O::PageDone { document, .. } => (*document, 50.0),
            _ => {
                event_sender.send(event).unwrap();
                return Ok(vec![]);
            }
        };
        event_sender.send(event).unwrap();
        Ok(vec![ProgressUpdate {
            document,
            percent,
            message: "going on".into(),
            seconds_left: None,
        }])
    });
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 30)]));
    let (events, _) = collect_events(&handle).await;
    let kinds: Vec<_> = all
        .try_iter()
        .map(|o| format!("{o:?}").split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.first().unwrap(), "DocumentStarted");
    assert_eq!(kinds.iter().filter(|k| *k == "PageDone").count(), 30);
    assert_eq!(kinds.iter().filter(|k| *k == "BatchRasterized").count(), 8);
    assert_eq!(kinds.last().unwrap(), "DocumentDone");
    let [progress, ended, over] = &events[events.len() - 3..] else {
        unreachable!()
    };
    assert!(matches!(
        progress.kind,
        EventKind::Progress { percent: 100.0, .. }
    ));
    assert!(matches!(ended.kind, EventKind::DocumentDone { .. }));
    assert!(matches!(over.kind, EventKind::JobEnded { .. }));
}

#[tokio::test]
async fn the_fake_ledger_passes_the_conformance_suite() {
    weir_conformance::check_ledger(&FakeLedger::default()).await;
}
