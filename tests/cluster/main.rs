//! Fault tests of several nodes, with the real binary. They take minutes and are ignored: `make cluster-test` runs them. Environment
//! variables (`settings.rs`) set other sizes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod fairness;
mod first_start;
mod frozen_node;
mod hot_swap;
mod killed_nodes;
mod rolling_upgrade;
mod settings;
mod store_outages;
