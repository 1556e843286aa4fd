//! Jobs that are resumed: after a crash, after a suspension, or out of a queue.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, sleep};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::{JobId, Stage};
use weir_engine::{DocumentEndState, JobSpec};

use crate::crash::pseudo_random_numbers;
use crate::document_ingestion::{collect_events, done_end, page_done_times};
use crate::fakes::{FakeHost, single_tenant_job};

fn host_with_stage_costs() -> FakeHost {
    FakeHost::new()
        .with_workers(Stage::Rasterize, 2)
        .with_workers(Stage::Read, 2)
        .with_cost(Stage::Rasterize, 35)
        .with_cost(Stage::Store, 90)
        .with_cost(Stage::Read, 70)
        .with_cost(Stage::Embed, 40)
        .with_cost(Stage::Upsert, 15)
}

const DOCUMENT_PAGES: u32 = 30;

fn two_document_job(fakes: &FakeHost, id: JobId) -> JobSpec {
    let documents = [
        fakes.document_spec("a.pdf", DOCUMENT_PAGES),
        fakes.document_spec("b.pdf", DOCUMENT_PAGES),
    ];
    JobSpec {
        id,
        ..single_tenant_job(documents)
    }
}

/// Runs a future on a new runtime in virtual time. All its tasks end with the runtime.
fn run_on_new_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// Checks the log of a finished job [`two_document_job`]: its numbers have no gaps, its times do not go back, each page is done
/// once, and the job ends once.
fn assert_complete_log(events: &[Event], which: &str) {
    let seqs: Vec<_> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "{which}");
    assert!(events.is_sorted_by_key(|e| e.since_job_created_millis), "{which}");
    let mut times_done: HashMap<_, u32> = HashMap::new();
    for event in events {
        if let EventKind::PageDone { page, .. } = event.kind {
            *times_done.entry((event.document, page)).or_default() += 1;
        }
    }
    assert_eq!(times_done.len(), 2 * DOCUMENT_PAGES as usize, "{which}");
    assert!(
        times_done.values().all(|times| *times == 1),
        "{which}: {times_done:?}"
    );
    let ends = events
        .iter()
        .filter(|e| matches!(e.kind, EventKind::JobEnded { .. }))
        .count();
    assert_eq!(ends, 1, "{which}");
    let last = events.last().map(|e| &e.kind);
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
fn job_that_crashes_repeatedly_resumes_in_one_log() {
    for seed in 0..40 {
        let (fakes, id) = (host_with_stage_costs(), JobId::new());
        for (i, millis) in pseudo_random_numbers(seed, 450).take(4).enumerate() {
            run_on_new_runtime(async {
                let engine = fakes.build_engine();
                let _job = engine.start_or_resume_job(two_document_job(&fakes, id));
                sleep(Duration::from_millis(millis)).await;
            });
            match i % 2 {
                0 => fakes.simulate_process_kill(),
                _ => fakes.simulate_power_cut(),
            }
        }
        let read = fakes.stages.call_counter(Stage::Read).call_count();
        let before = page_done_times(&fakes.ledger.job_events(id)).len() as u64;
        run_on_new_runtime(async {
            let engine = fakes.build_engine();
            let handle = engine.start_or_resume_job(two_document_job(&fakes, id));
            let (events, outcome) = collect_events(&handle).await;
            assert_eq!(outcome.state, JobState::Done, "seed {seed}");
            assert_complete_log(&events, &format!("seed {seed}"));
            engine.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
            assert_eq!(fakes.ledger.job_events(id), events, "seed {seed}");
        });
        // Recorded pages are not processed again.
        let again = fakes.stages.call_counter(Stage::Read).call_count() - read;
        assert_eq!(again, 2 * u64::from(DOCUMENT_PAGES) - before, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn suspended_job_finishes_pages_in_flight_and_resumes_later() {
    let (fakes, id) = (host_with_stage_costs(), JobId::new());
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(two_document_job(&fakes, id));
    sleep(Duration::from_millis(700)).await;
    let drawn = fakes.stages.call_counter(Stage::Rasterize).call_count();
    let began = Instant::now();
    engine
        .suspend_jobs_and_shutdown(Duration::from_secs(10))
        .await
        .unwrap();
    // The suspension waits for the pages in flight only.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(fakes.stages.live_images.in_flight(), 0);

    let outcome = handle.await_outcome().await;
    assert_eq!((outcome.state, outcome.error), (JobState::Running, None));
    let finished: u32 = outcome
        .documents
        .iter()
        .map(|d| match d.end {
            DocumentEndState::Suspended { done } => done,
            _ => panic!("{d:?}"),
        })
        .sum();
    let events: Vec<_> = handle.stream_events().map(|e| e.unwrap()).collect().await;
    assert_eq!(page_done_times(&events).len() as u32, finished);
    assert!(
        u64::from(finished) >= drawn,
        "{finished} of {drawn} rasterized pages were finished"
    );
    let of_pages = |e: &Event| {
        !matches!(
            e.kind,
            EventKind::DocumentCancelled { .. }
                | EventKind::DocumentFailed { .. }
                | EventKind::JobEnded { .. }
        )
    };
    assert!(events.iter().all(of_pages));
    let unfinished = fakes.ledger.list_unfinished_jobs().await.unwrap();
    assert_eq!(
        unfinished.iter().map(|j| (j.id, j.state)).collect::<Vec<_>>(),
        [(id, JobState::Running)]
    );

    let engine = fakes.build_engine();
    let (events, outcome) = collect_events(&engine.start_or_resume_job(two_document_job(&fakes, id))).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_complete_log(&events, "suspended");
    // No page was processed twice.
    assert_eq!(
        fakes.stages.call_counter(Stage::Read).call_count(),
        2 * u64::from(DOCUMENT_PAGES)
    );
    assert!(fakes.ledger.list_unfinished_jobs().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pages_that_hang_are_dropped_after_the_grace() {
    let fakes = host_with_stage_costs().with_cost(Stage::Read, 3_600_000);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(two_document_job(&fakes, JobId::new()));
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    engine
        .suspend_jobs_and_shutdown(Duration::from_secs(10))
        .await
        .unwrap();
    assert!(
        began.elapsed() <= Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(handle.await_outcome().await.state, JobState::Running);
    assert_eq!(fakes.stages.live_images.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn suspended_job_whose_last_pages_are_in_flight_is_done() {
    let fakes = host_with_stage_costs();
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 3)]));
    // All pages are rasterized, but not read yet.
    while fakes.stages.call_counter(Stage::Read).call_count() < 3 {
        sleep(Duration::from_millis(1)).await;
    }
    engine
        .suspend_jobs_and_shutdown(Duration::from_secs(10))
        .await
        .unwrap();
    let outcome = handle.await_outcome().await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(outcome.documents[0].end, done_end(3, 0));
}

#[tokio::test(start_paused = true)]
async fn queued_job_keeps_its_creation_time() {
    let (fakes, id, tenant) = (host_with_stage_costs(), JobId::new(), TenantId::default_tenant());
    let spec = two_document_job(&fakes, id);
    let queued = JobRecord {
        id,
        tenant: tenant.clone(),
        pipeline: spec.pipeline.manifest.name.clone(),
        revision: spec.pipeline.revision,
        state: JobState::Queued,
        // An arbitrary time, which must be kept.
        created_millis: 1_000,
    };
    fakes
        .ledger
        .commit_entries(vec![LedgerEntry::Job(queued.clone())])
        .await
        .unwrap();
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(spec);
    sleep(Duration::from_millis(400)).await;
    let state = |state| JobRecord {
        state,
        ..queued.clone()
    };
    assert_eq!(
        fakes.ledger.find_job(&tenant, &id).await.unwrap(),
        Some(state(JobState::Running))
    );
    let (events, _) = collect_events(&handle).await;
    assert_complete_log(&events, "queued");
    // The age of the job is about the time since 1970.
    assert!(
        events[0].since_job_created_millis > 1_600_000_000_000,
        "{}",
        events[0].since_job_created_millis
    );
    assert_eq!(
        fakes.ledger.find_job(&tenant, &id).await.unwrap(),
        Some(state(JobState::Done))
    );
}

#[tokio::test(start_paused = true)]
async fn active_job_is_not_started_twice() {
    let (fakes, id) = (host_with_stage_costs(), JobId::new());
    let engine = fakes.build_engine();
    assert!(engine.active_job(&id).is_none());
    let first = engine.start_or_resume_job(two_document_job(&fakes, id));
    sleep(Duration::from_millis(300)).await;
    let second = engine.start_or_resume_job(two_document_job(&fakes, id));
    assert_eq!(engine.active_job(&id).unwrap().id(), id);
    let (events, outcome) = collect_events(&second).await;
    assert_eq!(outcome, first.await_outcome().await);
    assert_complete_log(&events, "started twice");
    assert!(engine.active_job(&id).is_none());
}

#[tokio::test(start_paused = true)]
async fn ended_job_is_retried_in_the_same_log() {
    let fakes = host_with_stage_costs().with_faults(|stage, page, attempt| {
        (stage == Stage::Read && page == 7 && attempt <= 2).then_some(crate::fakes::InjectedFault::Page)
    });
    let (engine, id) = (fakes.build_engine(), JobId::new());
    let (failed, outcome) = collect_events(&engine.start_or_resume_job(two_document_job(&fakes, id))).await;
    assert_eq!(outcome.state, JobState::Failed);
    let handle = engine.start_or_resume_job(two_document_job(&fakes, id));
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(events[..failed.len()], failed);
    let seqs: Vec<_> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(fakes.ledger.job_events(id), events);
}
