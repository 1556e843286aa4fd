//! Tests of the policy host with real components: the defaults and those of `components/hostile`. Build them with
//! `components/build`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod compile_bomb;
mod component_inspection;
mod component_loading;
mod contract_functions;
mod default_components;
mod failure_reports;
mod host_call_limits;
mod hostile_components;
mod instance_limits;
mod invalid_decisions;
mod recordings;
mod replay;
mod support;
mod usage_metering;
