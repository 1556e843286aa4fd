//! Whole-product tests that run the real binary with PDFium, models and components on real files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod bad_input;
mod closed_pipes;
mod cluster;
mod command_output;
mod components;
mod doctor;
mod hostile_policies;
mod ingest;
mod interrupt;
mod kill_and_resume;
mod language_models;
mod memory_use;
mod migrate;
mod postgres;
mod qdrant;
mod redis;
mod retention;
mod s3;
mod serve;
mod shared_limits;
mod shared_recordings;
mod summaries;
mod vision;
