//! The functions of the contract.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manifest::Role;

/// A component function that returns a decision. The input type of each such function implements it.
pub trait PolicyFunctionInput:
    Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The role that has the function.
    const ROLE: Role;
    /// Its name in errors, logs, recordings and test cases.
    const NAME: &'static str;
    /// The decision that it returns.
    type Decision: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync;

    /// Describes in a few words what this call decides about (a page, a file name or an event), for logs and replay
    /// reports.
    fn describe_call_subject(&self) -> String;
}
