//! What is written down, when, and what happens when it cannot be; and those who watch.

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
use weir_engine::DocumentEnd;

use crate::fakes::{FakeLedger, Fakes, job};
use crate::flow::{done, follow};

#[tokio::test(start_paused = true)]
async fn entries_are_written_in_groups() {
    let fakes = Fakes::new().cost(Stage::Read, 10);
    let engine = fakes.engine();
    let began = Instant::now();
    engine.start(job([fakes.document("a.pdf", 1000)])).wait().await;
    let took = began.elapsed().as_millis() as usize;
    let commits = fakes.ledger.commits.lock().clone();
    // 100 pages, 100 page events and 25 batch events a second: the limit of 100 entries is reached before 250 ms are over.
    let entries: usize = commits.iter().sum();
    assert!(
        commits.len() <= entries / 100 + took / 250 + 3,
        "{} commits of {entries} entries",
        commits.len()
    );
    assert!(commits.iter().all(|n| *n <= 110), "{commits:?}");
    assert!(fakes.vectors.flushes.load(Ordering::SeqCst) as usize <= commits.len());

    // A second run writes no page, so neither blobs nor vectors are flushed for it.
    let flushes = fakes.vectors.flushes.load(Ordering::SeqCst) + fakes.blobs.flushes.load(Ordering::SeqCst);
    engine.start(job([fakes.document("a.pdf", 1000)])).wait().await;
    let after = fakes.vectors.flushes.load(Ordering::SeqCst) + fakes.blobs.flushes.load(Ordering::SeqCst);
    assert_eq!(after, flushes);
}

#[tokio::test(start_paused = true)]
async fn a_slow_document_is_written_down_every_quarter_of_a_second() {
    let fakes = Fakes::new().cost(Stage::Read, 1000);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 10)]));
    sleep(Duration::from_millis(5_400)).await;
    let recorded = fakes
        .ledger
        .pages(&TenantId::single(), &fakes.id("a.pdf"), None)
        .await
        .unwrap();
    assert_eq!(recorded.len(), 5);
    handle.cancel();
    handle.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_fails_the_jobs_at_once_and_loses_nothing_finished() {
    let fakes = Fakes::new().cost(Stage::Read, 100);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 1000)]));
    sleep(Duration::from_secs(5)).await;
    fakes.ledger.full.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let outcome = handle.wait().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(outcome.state, JobState::Failed);
    let DocumentEnd::Failed {
        error,
        done: finished,
    } = &outcome.documents[0].end
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.kind, "storage-full");
    assert_eq!(fakes.stages.images.now(), 0);

    // A job that starts now fails at once, too.
    let refused = engine.start(job([fakes.document("b.pdf", 10)])).wait().await;
    assert_eq!(refused.state, JobState::Failed);

    // With room again the journal recovers by itself, and what was finished is known.
    fakes.ledger.full.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(2)).await;
    let records = fakes
        .ledger
        .pages(&TenantId::single(), &fakes.id("a.pdf"), None)
        .await
        .unwrap();
    assert_eq!(records.len(), *finished as usize);
    let (events, _) = follow(&handle).await;
    assert_eq!(fakes.ledger.log(handle.id()), events);
    let again = engine.start(job([fakes.document("a.pdf", 1000)])).wait().await;
    assert_eq!(again.documents[0].end, done(1000, *finished));
    engine.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stays_full_is_said_at_the_end() {
    let fakes = Fakes::new();
    let engine = fakes.engine();
    fakes.ledger.full.store(true, Ordering::SeqCst);
    let outcome = engine.start(job([fakes.document("a.pdf", 10)])).wait().await;
    assert_eq!(outcome.state, JobState::Failed);
    assert_eq!(
        engine.shutdown(Duration::ZERO).await.unwrap_err().kind(),
        "storage-full"
    );
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_written_but_answered_with_an_error_doubles_nothing() {
    let fakes = Fakes::new().cost(Stage::Read, 100);
    fakes.ledger.lies.store(2, Ordering::SeqCst);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 40)]));
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.documents[0].end, done(40, 0));
    assert_eq!(fakes.ledger.log(handle.id()), events);
    fakes.assert_whole("a.pdf", 40).await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_sleeps_holds_nothing_up_and_misses_nothing() {
    let fakes = Fakes::new();
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 3000)]));
    let mut slow = handle.events();
    let first = slow.next().await.unwrap().unwrap();
    assert_eq!(first.seq, 1);
    assert_eq!(handle.wait().await.state, JobState::Done);
    // Far more than is kept in memory has happened meanwhile.
    let rest: Vec<Event> = slow.map(|e| e.unwrap()).collect().await;
    let seqs: Vec<_> = rest.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (2..=rest.len() as u64 + 1).collect::<Vec<_>>());
    assert!(rest.len() > 3750);
    assert!(matches!(rest.last().unwrap().what, EventKind::JobEnded { .. }));

    let late: Vec<_> = handle.events_after(3700).map(|e| e.unwrap().seq).collect().await;
    assert_eq!(late, (3701..=rest.len() as u64 + 1).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_progress_component_sees_everything_in_order_and_has_the_word_before_the_last() {
    let mut fakes = Fakes::new();
    let (seen, all) = std::sync::mpsc::channel();
    fakes.script.observe = Arc::new(move |what| {
        use weir_core::decision::Observation as O;
        let (document, percent) = match &what {
            O::DocumentDone { document, .. } => (*document, 100.0),
            O::PageDone { document, .. } => (*document, 50.0),
            _ => {
                seen.send(what).unwrap();
                return Ok(vec![]);
            }
        };
        seen.send(what).unwrap();
        Ok(vec![ProgressUpdate {
            document,
            percent,
            message: "going on".into(),
            seconds_left: None,
        }])
    });
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 30)]));
    let (events, _) = follow(&handle).await;
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
        progress.what,
        EventKind::Progress { percent: 100.0, .. }
    ));
    assert!(matches!(ended.what, EventKind::DocumentDone { .. }));
    assert!(matches!(over.what, EventKind::JobEnded { .. }));
}

#[tokio::test]
async fn the_fake_ledger_passes_the_conformance_suite() {
    weir_conformance::check_ledger(&FakeLedger::default()).await;
}
