//! The functions of the contract.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manifest::Role;

/// A function of the contract that decides; implemented for the input type of each.
pub trait PolicyFunction:
    Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The role that has the function.
    const ROLE: Role;
    /// Its name in errors, logs, recordings and test cases.
    const NAME: &'static str;
    /// The decision that it returns.
    type Decision: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync;

    /// Returns a short description of the subject of the call: a page, a file name or an event.
    fn describe_call_subject(&self) -> String;
}
