//! Tests of the router and the modules around it: in virtual time with fake providers, and in real time with a real HTTP
//! server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod cached_model;
mod denials;
mod endpoint_errors;
mod failing_endpoints;
mod fairness;
mod fake_call_store;
mod fake_endpoint;
mod fake_provider;
mod makespan;
mod provider_setup;
mod retries;
mod router_breakers;
mod shared_limits;
mod usage_accounting;
