//! The policy calls: how each function of the contract is called and how its decision is checked.
//!
//! There is one file for each role. A decision outside the ranges of the contract is invalid, and the reason names the range.
//! Where the contract says "cut" or "taken", the decision is cut instead. Every value from a guest is checked here.

mod batching;
mod chunking;
mod progress;
mod routing;
mod wit_conversions;

use std::future::Future;

use weir_core::event::ErrorInfo;
use weir_core::manifest::Role;

use crate::live_instance::LiveInstance;
use crate::recording::RecordedDecision;

pub(crate) use progress::TimedObservation;
pub(crate) use routing::PageToRoute;

/// The input of a policy call; implemented for the input type of each function.
pub(crate) trait PolicyCall: Clone + Send + Sync + 'static {
    /// The role that has the function.
    const ROLE: Role;
    /// The function's name in errors and logs.
    const FUNCTION: &'static str;
    /// The value that the guest returns.
    type RawDecision: Send;
    /// The checked decision that the engine receives.
    type Decision: Clone + Send;

    /// Calls the guest's function.
    fn invoke(
        &self,
        live: &mut LiveInstance,
    ) -> impl Future<Output = wasmtime::Result<Self::RawDecision>> + Send;

    /// Checks the guest's value. The error is the reason why it is invalid.
    fn validate(&self, said: Self::RawDecision) -> Result<Self::Decision, String>;

    /// Combines input and result for the recording.
    fn into_recorded_decision(self, answer: Result<Self::Decision, ErrorInfo>) -> RecordedDecision;
}

/// Returns the error for an instance without the exports of a role. The exports are looked up when the instance is created, so
/// a job does not meet this error.
fn missing_export_error(role: Role) -> wasmtime::Error {
    wasmtime::Error::msg(format!("the instance was not made for the role {}", role.name()))
}

/// Returns the value if it is within `from` to `to`, both inclusive. The error names the range.
fn check_range<T: PartialOrd + std::fmt::Display>(what: &str, value: T, from: T, to: T) -> Result<T, String> {
    if value >= from && value <= to {
        Ok(value)
    } else {
        Err(format!("{what} is {value}, not within {from} to {to}"))
    }
}
