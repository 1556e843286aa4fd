//! The functions of the WIT contract: how the host calls each function and how it validates the decision.
//!
//! There is one file for each role. A decision outside the ranges of the contract is invalid, and the reason names the range.
//! Where the contract says "cut" or "taken", the decision is cut instead. Every value from a guest is checked here.

mod batching;
mod chunking;
mod progress;
mod routing;
mod wit_conversions;

use std::future::Future;

use weir_core::decision::PolicyFunctionInput;
use weir_core::manifest::Role;

use crate::instance::instance_data::LiveInstance;
use crate::recording::{PolicyFunctionCall, RecordedDecision};

/// A function of the contract as a guest exports it; implemented for the input type of each function. The conversions
/// between core types and WIT types are here.
pub(crate) trait GuestFunction: PolicyFunctionInput {
    /// Makes the recorded form of a call.
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision;
    /// The value that the guest returns.
    type RawDecision: Send;

    /// Calls the guest's function.
    fn call_guest_function(
        &self,
        live: &mut LiveInstance,
    ) -> impl Future<Output = wasmtime::Result<Self::RawDecision>> + Send;

    /// Validates the guest's value and converts it to the core type. The error says why the value is invalid.
    fn validate_decision(&self, raw_decision: Self::RawDecision) -> Result<Self::Decision, String>;
}

/// Returns the error for an instance without the exports of a role. The exports are looked up when the instance is created, so
/// a job does not meet this error.
fn missing_export_error(role: Role) -> wasmtime::Error {
    wasmtime::Error::msg(format!(
        "the instance does not export the functions of the role {}",
        role.name()
    ))
}

/// Returns the value if it is within `from` to `to`, both inclusive. The error names the range.
fn check_range<T: PartialOrd + std::fmt::Display>(what: &str, value: T, from: T, to: T) -> Result<T, String> {
    if value >= from && value <= to {
        Ok(value)
    } else {
        Err(format!("{what} is {value}, not within {from} to {to}"))
    }
}
