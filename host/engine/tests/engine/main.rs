//! The engine against fakes, in virtual time.

#![allow(unreachable_pub)] // the fakes are shared with the benchmark
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::reversed_empty_ranges,
    clippy::single_range_in_vec_init
)]

mod cancel;
mod capabilities;
mod chapters;
#[path = "../../../core/conformance/vector_store.rs"]
mod conformance;
mod crash;
mod delete;
mod failed_pages;
mod failures;
mod fairness;
mod fakes;
mod filing;
mod floor;
mod flow;
mod ledger;
mod makespan;
mod measures;
mod model_waits;
mod quota;
mod resume;
mod search;
mod summaries;
mod summary_index;
mod threads;
mod vision;
