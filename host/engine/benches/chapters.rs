//! How long the summaries of a book of 385 chapters take beside the least they can, with each optimization switched off in
//! turn where it matters; in virtual time, by the real engine and the real router.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::panic
)]

#[path = "../tests/engine/chapters.rs"]
mod chapters;
#[path = "../tests/engine/fakes/mod.rs"]
mod fakes;

use chapters::{LONG, PARTS, SHORT, Setup, run};

fn main() {
    let all = Setup::default();
    let two = Setup {
        providers: 2,
        ..all.clone()
    };
    let optimist = Setup {
        stated: 6,
        ..all.clone()
    };
    let down = Setup {
        down: Some(300..900),
        ..two.clone()
    };
    let stopped = Setup {
        stopped_after: Some(400),
        ..all.clone()
    };
    let table = [
        ("one provider", all.clone()),
        ("two providers", two.clone()),
        (
            "one call at once instead of four",
            Setup {
                stated: 1,
                ..all.clone()
            },
        ),
        (
            "772 parts instead of 444",
            Setup {
                parts: 772,
                ..all.clone()
            },
        ),
        (
            "room for one question that waits instead of 800",
            Setup {
                slow_at: 1,
                ..all.clone()
            },
        ),
        (
            "a provider that bears less than it states: limit adapts",
            optimist.clone(),
        ),
        (
            "… and does not",
            Setup {
                adaptive: false,
                ..optimist
            },
        ),
        (
            "one of two is silent for 10 minutes: left alone by the breaker",
            down.clone(),
        ),
        (
            "… no breaker",
            Setup {
                breaker: false,
                ..down
            },
        ),
        ("stopped after 400 answers: they are kept", stopped.clone()),
        (
            "… they are not",
            Setup {
                cache: false,
                ..stopped
            },
        ),
    ];
    println!("{} chapters, {PARTS} parts of {LONG} of them", SHORT + LONG);
    println!(
        "| | summarized | floor | makespan | ratio | calls | too late | longest wait to ask | left alone |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (what, setup) in table {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        let run = runtime.unwrap().block_on(run(&setup));
        println!(
            "| {what} | {} | {:.0} s | {:.0} s | {:.3} | {} | {} ({:.1} %) | {:.1} s | {} × |",
            run.summarized,
            run.floor.as_secs_f64(),
            run.took.as_secs_f64(),
            run.ratio(),
            run.calls,
            run.timeouts,
            100.0 * run.timeouts as f64 / run.calls as f64,
            run.blocked.as_secs_f64(),
            run.opened,
        );
        if let Some(why) = run.why {
            println!("  {why}");
        }
    }
}
