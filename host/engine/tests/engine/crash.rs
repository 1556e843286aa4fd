//! Killed at any moment, nothing is lost and nothing doubled.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_core::Stage;
use weir_core::event::EventKind;
use weir_engine::DocumentEnd;

use crate::fakes::{Fakes, job};
use crate::flow::{follow, pages_done};

/// A host whose stages take about as long as each other, so that a crash finds pages everywhere.
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

/// Numbers spread over `0..below`, the same in every run (a linear congruential generator, Knuth's MMIX constants).
pub(crate) fn scattered(seed: u64, below: u64) -> impl Iterator<Item = u64> {
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

/// How a host dies: a process that is killed leaves what it has written, a machine without power what it has flushed.
#[derive(Clone, Copy)]
enum Death {
    Kill,
    PowerCut,
}

/// A runtime whose end is the end of everything that ran on it.
fn die_after(fakes: &Fakes, millis: u64, death: Death, force: bool) {
    let machine = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    machine.block_on(async {
        let engine = fakes.engine();
        let mut spec = job([fakes.document("a.pdf", 40)]);
        spec.force = force;
        let _job = engine.start(spec);
        sleep(Duration::from_millis(millis)).await;
    });
    drop(machine);
    match death {
        Death::Kill => fakes.settle(),
        Death::PowerCut => fakes.crash(),
    }
}

/// The time a run takes, and a little more.
const WHOLE: u64 = 40 * 40 + 500;

#[test]
fn two_hundred_crashes_at_scattered_moments() {
    for (i, millis) in scattered(1, WHOLE).take(200).enumerate() {
        let fakes = host();
        let death = if i % 2 == 0 { Death::Kill } else { Death::PowerCut };
        die_after(&fakes, millis, death, false);
        finish(&fakes, &format!("{i}, after {millis} ms"));
    }
}

#[test]
fn crashes_while_a_done_document_is_done_again() {
    for (i, millis) in scattered(2, WHOLE).take(100).enumerate() {
        let fakes = host();
        die_after(&fakes, WHOLE * 2, Death::PowerCut, false);
        let death = if i % 2 == 0 { Death::Kill } else { Death::PowerCut };
        die_after(&fakes, millis, death, true);
        finish(&fakes, &format!("{i}, after {millis} ms"));
    }
}

#[test]
fn crash_after_crash_still_comes_to_an_end() {
    for seed in 0..20 {
        let fakes = host();
        for millis in scattered(seed, 900).take(8) {
            die_after(&fakes, millis, Death::PowerCut, false);
        }
        finish(&fakes, &format!("seed {seed}"));
    }
}

/// Runs to the end and checks that every page is there once.
fn finish(fakes: &Fakes, which: &str) {
    let machine = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    machine.block_on(async {
        let engine = fakes.engine();
        let outcome = engine.start(job([fakes.document("a.pdf", 40)])).wait().await;
        assert!(
            matches!(
                outcome.documents[0].end,
                DocumentEnd::Done {
                    pages: 40,
                    searchable: 40,
                    ..
                }
            ),
            "{which}: {outcome:?}"
        );
        engine.shutdown(Duration::ZERO).await.unwrap();
        fakes.crash();
        fakes.assert_whole("a.pdf", 40).await;
    });
}

#[tokio::test(start_paused = true)]
async fn what_was_reported_long_enough_ago_is_not_done_again() {
    let fakes = host();
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 100)]));
    sleep(Duration::from_secs(2)).await;
    let crashed = Instant::now();
    drop(engine);
    fakes.crash();
    let (events, _) = follow(&handle).await;
    let now = events.iter().map(|e| e.at_millis).max().unwrap();
    let recorded = pages_done(&events)
        .iter()
        .filter(|(_, at)| at + 300 < now)
        .count();
    assert!(recorded > 10);
    let engine = fakes.engine();
    let (events, outcome) = follow(&engine.start(job([fakes.document("a.pdf", 100)]))).await;
    let DocumentEnd::Done { skipped, .. } = outcome.documents[0].end else {
        panic!("{outcome:?}")
    };
    assert!(skipped as usize >= recorded, "{skipped} of {recorded}");
    assert!(
        matches!(events[0].what, EventKind::DocumentStarted { already_done, .. } if already_done == skipped)
    );
    assert!(crashed.elapsed() < Duration::from_secs(60));
    fakes.assert_whole("a.pdf", 100).await;
}
