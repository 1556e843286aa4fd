//! Whole-product tests: the real binary, PDFium, models and components, on real files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod bad_input;
mod cancel;
mod components;
mod crash;
mod doctor;
mod ingest;
mod memory;
mod models;
mod pipes;
mod policies;
mod reports;
mod serve;
mod summaries;
mod vision;
