//! Conformance suites for the ports. The stores and the fakes of each crate's tests run the same suite, so that a fake behaves as
//! the store does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this crate is tests")]

mod ledger;
mod policy_state;

pub use ledger::check_ledger;
pub use policy_state::check_policy_state;
