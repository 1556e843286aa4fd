//! Tests of the engine with fake ports, in virtual time.

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
mod collection_and_labels;
mod crash;
mod document_deletion;
mod document_ingestion;
mod failed_pages;
mod failures;
mod fairness;
mod fakes;
mod floor;
mod group_commit;
mod lost_claim;
mod makespan;
mod metering;
mod model_waits;
mod quota;
mod real_threads;
mod resume;
mod search;
mod store_outage;
mod summaries;
mod summary_index;
mod vision;
