//! The adapter against real components: the default ones, and those of `components/hostile`. Build them with
//! `components/build`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod asking;
mod bomb;
mod crowd;
mod defaults;
mod flood;
mod gate;
mod hostile;
mod metering;
mod nonsense;
mod opening;
mod recordings;
mod replay;
mod reports;
mod support;
