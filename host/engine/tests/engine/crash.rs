//! Crashes at any moment lose and duplicate nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_core::Stage;
use weir_core::event::EventKind;
use weir_engine::DocumentEndState;

use crate::document_ingestion::{collect_events, page_done_times};
use crate::fakes::{FakeHost, single_tenant_job};

/// Creates a host whose stages take about the same time, so that each stage has pages when it crashes.
fn host_with_balanced_stages() -> FakeHost {
    FakeHost::new()
        .with_workers(Stage::Rasterize, 2)
        .with_workers(Stage::Read, 2)
        .with_cost(Stage::Rasterize, 35)
        .with_cost(Stage::Store, 90)
        .with_cost(Stage::Read, 70)
        .with_cost(Stage::Embed, 40)
        .with_cost(Stage::Upsert, 15)
}

/// Returns pseudo-random numbers in `0..below` that are the same in every run. Uses a linear congruential generator with Knuth's
/// MMIX constants.
pub(crate) fn pseudo_random_numbers(seed: u64, below: u64) -> impl Iterator<Item = u64> {
    let step = |x: &u64| {
        Some(
            x.wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    };
    std::iter::successors(Some(seed), step)
        .skip(1)
        .map(move |x| (x >> 33) % below)
}

/// How a host crashes. A killed process keeps its written data, a power cut keeps only flushed data.
#[derive(Clone, Copy)]
enum CrashKind {
    Kill,
    PowerCut,
}

/// Runs a job for some time and crashes the host. All tasks end with their runtime.
fn crash_after(fakes: &FakeHost, millis: u64, crash_kind: CrashKind, force: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let engine = fakes.build_engine();
        let mut spec = single_tenant_job([fakes.document_spec("a.pdf", 40)]);
        spec.force = force;
        let _job = engine.start_or_resume_job(spec);
        sleep(Duration::from_millis(millis)).await;
    });
    drop(runtime);
    match crash_kind {
        CrashKind::Kill => fakes.simulate_process_kill(),
        CrashKind::PowerCut => fakes.simulate_power_cut(),
    }
}

/// A little more than the duration of a run, in milliseconds.
const RUN_MILLIS: u64 = 40 * 40 + 500;

#[test]
fn document_completes_after_a_crash_at_any_moment() {
    for (i, millis) in pseudo_random_numbers(1, RUN_MILLIS).take(200).enumerate() {
        let fakes = host_with_balanced_stages();
        let crash_kind = if i % 2 == 0 {
            CrashKind::Kill
        } else {
            CrashKind::PowerCut
        };
        crash_after(&fakes, millis, crash_kind, false);
        finish_and_check(&fakes, &format!("{i}, after {millis} ms"));
    }
}

#[test]
fn crash_during_a_forced_rerun_loses_no_page() {
    for (i, millis) in pseudo_random_numbers(2, RUN_MILLIS).take(100).enumerate() {
        let fakes = host_with_balanced_stages();
        crash_after(&fakes, RUN_MILLIS * 2, CrashKind::PowerCut, false);
        let crash_kind = if i % 2 == 0 {
            CrashKind::Kill
        } else {
            CrashKind::PowerCut
        };
        crash_after(&fakes, millis, crash_kind, true);
        finish_and_check(&fakes, &format!("{i}, after {millis} ms"));
    }
}

#[test]
fn document_is_done_after_repeated_crashes() {
    for seed in 0..20 {
        let fakes = host_with_balanced_stages();
        for millis in pseudo_random_numbers(seed, 900).take(8) {
            crash_after(&fakes, millis, CrashKind::PowerCut, false);
        }
        finish_and_check(&fakes, &format!("seed {seed}"));
    }
}

/// Runs the job to its end and checks that every page is stored once.
fn finish_and_check(fakes: &FakeHost, which: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let engine = fakes.build_engine();
        let outcome = engine
            .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 40)]))
            .await_outcome()
            .await;
        assert!(
            matches!(
                outcome.documents[0].end,
                DocumentEndState::Done {
                    pages: 40,
                    searchable: 40,
                    ..
                }
            ),
            "{which}: {outcome:?}"
        );
        engine.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
        fakes.simulate_power_cut();
        fakes.assert_document_complete("a.pdf", 40).await;
    });
}

#[tokio::test(start_paused = true)]
async fn pages_reported_300_ms_before_a_crash_are_not_redone() {
    let fakes = host_with_balanced_stages();
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)]));
    sleep(Duration::from_secs(2)).await;
    let crashed = Instant::now();
    drop(engine);
    fakes.simulate_power_cut();
    let (events, _) = collect_events(&handle).await;
    let now = events.iter().map(|e| e.since_job_created_millis).max().unwrap();
    let recorded = page_done_times(&events)
        .iter()
        .filter(|(_, at)| at + 300 < now)
        .count();
    assert!(recorded > 10);
    let engine = fakes.build_engine();
    let (events, outcome) =
        collect_events(&engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)])))
            .await;
    let DocumentEndState::Done { skipped, .. } = outcome.documents[0].end else {
        panic!("{outcome:?}")
    };
    assert!(skipped as usize >= recorded, "{skipped} of {recorded}");
    assert!(
        matches!(events[0].kind, EventKind::DocumentStarted { already_done, .. } if already_done == skipped)
    );
    assert!(crashed.elapsed() < Duration::from_secs(60));
    fakes.assert_document_complete("a.pdf", 100).await;
}
