//! The router and all around it: in virtual time with providers that are made up, and in real time against a real HTTP server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod accounts;
mod answers;
mod denied;
mod endpoint;
mod fairness;
mod fakes;
mod faults;
mod flaky;
mod makespan;
mod settings;
mod trouble;
