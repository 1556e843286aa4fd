//! Jobs that go on: after a crash, after a host that was told to stop, out of a queue.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, sleep};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::{Entry, JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::{JobId, Stage};
use weir_engine::{DocumentEnd, JobSpec};

use crate::crash::scattered;
use crate::fakes::{Fakes, job};
use crate::flow::{done, follow, pages_done};

fn host() -> Fakes {
    Fakes::new()
        .workers(Stage::Rasterize, 2)
        .workers(Stage::Read, 2)
        .cost(Stage::Rasterize, 35)
        .cost(Stage::Store, 90)
        .cost(Stage::Read, 70)
        .cost(Stage::Embed, 40)
        .cost(Stage::Upsert, 15)
}

const PAGES: u32 = 30;

fn spec(fakes: &Fakes, id: JobId) -> JobSpec {
    let documents = [fakes.document("a.pdf", PAGES), fakes.document("b.pdf", PAGES)];
    JobSpec { id, ..job(documents) }
}

/// A machine in virtual time; its end is the end of everything that ran on it.
fn on_a_machine<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(life)
}

/// Checks the log of a job that has done [`spec`]: numbers without gaps, a clock that does not go back, each page done once,
/// one end.
fn assert_one_log(events: &[Event], which: &str) {
    let seqs: Vec<_> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "{which}");
    assert!(events.is_sorted_by_key(|e| e.at_millis), "{which}");
    let mut times_done: HashMap<_, u32> = HashMap::new();
    for event in events {
        if let EventKind::PageDone { page, .. } = event.what {
            *times_done.entry((event.document, page)).or_default() += 1;
        }
    }
    assert_eq!(times_done.len(), 2 * PAGES as usize, "{which}");
    assert!(
        times_done.values().all(|times| *times == 1),
        "{which}: {times_done:?}"
    );
    let ends = events
        .iter()
        .filter(|e| matches!(e.what, EventKind::JobEnded { .. }))
        .count();
    assert_eq!(ends, 1, "{which}");
    let last = events.last().map(|e| &e.what);
    assert!(
        matches!(
            last,
            Some(EventKind::JobEnded {
                state: JobState::Done,
                ..
            })
        ),
        "{which}: {last:?}"
    );
}

#[test]
fn a_job_that_dies_again_and_again_goes_on_in_one_log() {
    for seed in 0..40 {
        let (fakes, id) = (host(), JobId::new());
        for (i, millis) in scattered(seed, 450).take(4).enumerate() {
            on_a_machine(async {
                let engine = fakes.engine();
                let _job = engine.start(spec(&fakes, id));
                sleep(Duration::from_millis(millis)).await;
            });
            match i % 2 {
                0 => fakes.settle(),
                _ => fakes.crash(),
            }
        }
        let read = fakes.stages.meter(Stage::Read).calls();
        let before = pages_done(&fakes.ledger.log(id)).len() as u64;
        on_a_machine(async {
            let engine = fakes.engine();
            let handle = engine.start(spec(&fakes, id));
            let (events, outcome) = follow(&handle).await;
            assert_eq!(outcome.state, JobState::Done, "seed {seed}");
            assert_one_log(&events, &format!("seed {seed}"));
            engine.shutdown(Duration::ZERO).await.unwrap();
            assert_eq!(fakes.ledger.log(id), events, "seed {seed}");
        });
        // What was written down is not done again.
        let again = fakes.stages.meter(Stage::Read).calls() - read;
        assert_eq!(again, 2 * u64::from(PAGES) - before, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_ends_what_is_in_flight_and_goes_on_later() {
    let (fakes, id) = (host(), JobId::new());
    let engine = fakes.engine();
    let handle = engine.start(spec(&fakes, id));
    sleep(Duration::from_millis(700)).await;
    let drawn = fakes.stages.meter(Stage::Rasterize).calls();
    let began = Instant::now();
    engine.suspend(Duration::from_secs(10)).await.unwrap();
    // It waits for the pages in flight and for nothing else.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(fakes.stages.images.now(), 0);

    let outcome = handle.wait().await;
    assert_eq!((outcome.state, outcome.error), (JobState::Running, None));
    let finished: u32 = outcome
        .documents
        .iter()
        .map(|d| match d.end {
            DocumentEnd::Suspended { done } => done,
            _ => panic!("{d:?}"),
        })
        .sum();
    let events: Vec<_> = handle.events().map(|e| e.unwrap()).collect().await;
    assert_eq!(pages_done(&events).len() as u32, finished);
    assert!(
        u64::from(finished) >= drawn,
        "{finished} of {drawn} that were drawn"
    );
    let of_pages = |e: &Event| {
        !matches!(
            e.what,
            EventKind::DocumentCancelled { .. }
                | EventKind::DocumentFailed { .. }
                | EventKind::JobEnded { .. }
        )
    };
    assert!(events.iter().all(of_pages));
    let unfinished = fakes.ledger.unfinished().await.unwrap();
    assert_eq!(
        unfinished.iter().map(|j| (j.id, j.state)).collect::<Vec<_>>(),
        [(id, JobState::Running)]
    );

    let engine = fakes.engine();
    let (events, outcome) = follow(&engine.start(spec(&fakes, id))).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_one_log(&events, "suspended");
    // Nothing was done twice.
    assert_eq!(fakes.stages.meter(Stage::Read).calls(), 2 * u64::from(PAGES));
    assert!(fakes.ledger.unfinished().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pages_that_hang_are_dropped_after_the_grace() {
    let fakes = host().cost(Stage::Read, 3_600_000);
    let engine = fakes.engine();
    let handle = engine.start(spec(&fakes, JobId::new()));
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    engine.suspend(Duration::from_secs(10)).await.unwrap();
    assert!(
        began.elapsed() <= Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(handle.wait().await.state, JobState::Running);
    assert_eq!(fakes.stages.images.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_last_pages_are_in_flight_ends_well() {
    let fakes = host();
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 3)]));
    // Drawn, not read.
    while fakes.stages.meter(Stage::Read).calls() < 3 {
        sleep(Duration::from_millis(1)).await;
    }
    engine.suspend(Duration::from_secs(10)).await.unwrap();
    let outcome = handle.wait().await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(outcome.documents[0].end, done(3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_job_out_of_the_queue_keeps_its_age() {
    let (fakes, id, tenant) = (host(), JobId::new(), TenantId::single());
    let spec = spec(&fakes, id);
    let queued = JobRecord {
        id,
        tenant: tenant.clone(),
        pipeline: spec.pipeline.manifest.name.clone(),
        revision: spec.pipeline.revision,
        state: JobState::Queued,
        // Far ahead of any clock would be as good: it is kept whatever it is.
        created_millis: 1_000,
    };
    fakes
        .ledger
        .commit(vec![Entry::Job(queued.clone())])
        .await
        .unwrap();
    let engine = fakes.engine();
    let handle = engine.start(spec);
    sleep(Duration::from_millis(400)).await;
    let state = |state| JobRecord {
        state,
        ..queued.clone()
    };
    assert_eq!(
        fakes.ledger.job(&tenant, &id).await.unwrap(),
        Some(state(JobState::Running))
    );
    let (events, _) = follow(&handle).await;
    assert_one_log(&events, "queued");
    // The seconds since 1970, more or less.
    assert!(events[0].at_millis > 1_600_000_000_000, "{}", events[0].at_millis);
    assert_eq!(
        fakes.ledger.job(&tenant, &id).await.unwrap(),
        Some(state(JobState::Done))
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_in_work_is_found_and_not_started_twice() {
    let (fakes, id) = (host(), JobId::new());
    let engine = fakes.engine();
    assert!(engine.job(&id).is_none());
    let first = engine.start(spec(&fakes, id));
    sleep(Duration::from_millis(300)).await;
    let second = engine.start(spec(&fakes, id));
    assert_eq!(engine.job(&id).unwrap().id(), id);
    let (events, outcome) = follow(&second).await;
    assert_eq!(outcome, first.wait().await);
    assert_one_log(&events, "started twice");
    assert!(engine.job(&id).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_ended_is_tried_once_more_in_the_same_log() {
    let fakes = host().faults(|stage, page, attempt| {
        (stage == Stage::Read && page == 7 && attempt <= 2).then_some(crate::fakes::Fault::Page)
    });
    let (engine, id) = (fakes.engine(), JobId::new());
    let (failed, outcome) = follow(&engine.start(spec(&fakes, id))).await;
    assert_eq!(outcome.state, JobState::Failed);
    let handle = engine.start(spec(&fakes, id));
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(events[..failed.len()], failed);
    let seqs: Vec<_> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(fakes.ledger.log(id), events);
}
