//! Compares the makespan of a document in virtual time with the minimum that stage costs and workers allow. The difference is the
//! overhead of the engine.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::panic
)]

#[path = "../tests/engine/fakes/mod.rs"]
mod fakes;
#[path = "../tests/engine/floor.rs"]
mod floor;

fn main() {
    println!(
        "| pages | rasterize, store, read, embed, upsert workers | minimum | makespan | ratio | first page | share |"
    );
    println!("|---|---|---|---|---|---|---|");
    for pages in [10, 100, 1000] {
        for workers in [
            [1, 1, 1, 1, 1],
            [1, 8, 2, 1, 1],
            [1, 8, 3, 2, 1],
            [2, 8, 3, 2, 1],
            [2, 8, 5, 4, 1],
            [4, 8, 8, 5, 1],
        ] {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build();
            let run = runtime.unwrap().block_on(floor::run_document(pages, workers));
            println!(
                "| {pages} | {workers:?} | {:.1} s | {:.1} s | {:.3} | {:.1} s | {:.1} % |",
                run.minimum.as_secs_f64(),
                run.makespan.as_secs_f64(),
                run.ratio_to_floor(),
                run.first_page_searchable.as_secs_f64(),
                100.0 * run.first_page_searchable.as_secs_f64() / run.makespan.as_secs_f64(),
            );
        }
    }
}
