//! Measures how long the summary of a book of 385 chapters takes compared to the minimum, also with single optimizations switched
//! off. Runs the real engine and the real router in virtual time.

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

use chapters::{BookSetup, LONG_CHAPTER_PARTS, LONG_CHAPTERS, SHORT_CHAPTERS, summarize_book};

fn main() {
    let all = BookSetup::default();
    let two = BookSetup {
        providers: 2,
        ..all.clone()
    };
    let optimist = BookSetup {
        stated_concurrency: 6,
        ..all.clone()
    };
    let down = BookSetup {
        outage_seconds: Some(300..900),
        ..two.clone()
    };
    let stopped = BookSetup {
        stop_after_responses: Some(400),
        ..all.clone()
    };
    let table = [
        ("one provider", all.clone()),
        ("two providers", two.clone()),
        (
            "one concurrent call instead of four",
            BookSetup {
                stated_concurrency: 1,
                ..all.clone()
            },
        ),
        (
            "772 parts instead of 444",
            BookSetup {
                parts: 772,
                ..all.clone()
            },
        ),
        (
            "one waiting request allowed instead of 800",
            BookSetup {
                max_waiting_requests: 1,
                ..all.clone()
            },
        ),
        (
            "a provider with less capacity than configured: the limit adapts",
            optimist.clone(),
        ),
        (
            "… the limit does not adapt",
            BookSetup {
                adaptive: false,
                ..optimist
            },
        ),
        (
            "one of two does not respond for 10 minutes: the breaker opens",
            down.clone(),
        ),
        (
            "… no breaker",
            BookSetup {
                breaker: false,
                ..down
            },
        ),
        ("stopped after 400 responses: they are cached", stopped.clone()),
        (
            "… they are not cached",
            BookSetup {
                cache: false,
                ..stopped
            },
        ),
    ];
    println!(
        "{} chapters, {LONG_CHAPTER_PARTS} parts of {LONG_CHAPTERS} of them",
        SHORT_CHAPTERS + LONG_CHAPTERS
    );
    println!(
        "| | summarized | minimum | makespan | ratio | calls | timeouts | longest admission wait | breaker opened |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (what, setup) in table {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        let run = runtime.unwrap().block_on(summarize_book(&setup));
        println!(
            "| {what} | {} | {:.0} s | {:.0} s | {:.3} | {} | {} ({:.1} %) | {:.1} s | {} × |",
            run.summarized,
            run.minimum.as_secs_f64(),
            run.took.as_secs_f64(),
            run.ratio_to_floor(),
            run.calls,
            run.timeouts,
            100.0 * run.timeouts as f64 / run.calls as f64,
            run.longest_admission_wait.as_secs_f64(),
            run.breaker_openings,
        );
        if let Some(why) = run.failure_message {
            println!("  {why}");
        }
    }
}
