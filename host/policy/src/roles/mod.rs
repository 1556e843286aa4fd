//! The decisions a component can be asked for: how each is put to a guest and what counts as an answer.
//!
//! One file for each role. An answer that lies outside the ranges of the contract is nonsense, and the reason says which
//! range; where the contract says "cut" or "taken", the answer is cut instead. Nothing that a guest said gets past these
//! files unchecked.

mod batching;
mod chunking;
mod progress;
mod routing;
mod words;

use std::future::Future;

use weir_core::event::ErrorNote;
use weir_core::manifest::Role;

use crate::live::Live;
use crate::recording::Exchange;

pub(crate) use progress::Observed;
pub(crate) use routing::PageFound;

/// Something a component is asked to decide.
pub(crate) trait Decision: Clone + Send + Sync + 'static {
    /// Who is asked.
    const ROLE: Role;
    /// The function's name in errors and recordings.
    const FUNCTION: &'static str;
    /// What the guest answers.
    type Said: Send;
    /// What the engine is told.
    type Answer: Clone + Send;

    /// Asks the guest.
    fn ask(&self, live: &mut Live) -> impl Future<Output = wasmtime::Result<Self::Said>> + Send;

    /// Checks what it said; the error is the reason it makes no sense.
    fn check(&self, said: Self::Said) -> Result<Self::Answer, String>;

    /// Question and answer, for the recording.
    fn exchange(self, answer: Result<Self::Answer, ErrorNote>) -> Exchange;
}

/// The exports of a role are looked up when an instance is made for it, so that this cannot fail in a job; if it did, the
/// call is an error like any other.
fn missing(role: Role) -> wasmtime::Error {
    wasmtime::Error::msg(format!("the instance was not made for the role {}", role.name()))
}

/// Within a range, or the reason why not.
fn within<T: PartialOrd + std::fmt::Display>(what: &str, value: T, from: T, to: T) -> Result<T, String> {
    if value >= from && value <= to {
        Ok(value)
    } else {
        Err(format!("{what} is {value}, not within {from} to {to}"))
    }
}
