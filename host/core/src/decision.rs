//! The input and output types of component calls: the Rust side of `wit/`.
//!
//! The policy adapter validates each decision before the engine sees it, so the engine can rely on the ranges given
//! here.
//!
//! As JSON, inputs and decisions have the names of `wit/`: authors of components write test cases in this form. Names are
//! `kebab-case`, and a case of a WIT variant is `"name"` or `{"name": value}`. An input may leave out fields that have a
//! default: lists are then empty, options are not set, pages are readable and of size A4, and the document id is all
//! zeros. Recordings encode the same types by position, so the order of fields and variants is part of their format.

mod batching;
mod chunking;
mod progress;
mod routing;
mod stage_state;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::DocumentId;
use crate::manifest::Role;

pub use batching::{BatchContext, ComputeDevice, DeviceKind, NextBatchPlan};
pub use chunking::{Heading, PageTextToSplit, SectionToSummarize, SummaryPlan, SummaryPrompt};
pub use progress::{ObservedEvent, ProgressUpdate, TimedEvent};
pub use routing::{
    DocumentFacts, DocumentRoute, FailureAction, Label, ModelPreferences, PageRoute, PageStageFailure,
    PageToRoute, ReadingMethod,
};
pub use stage_state::{QueueState, StageTiming, StageTotals};

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

/// Default document id: all zeros.
fn default_document() -> DocumentId {
    DocumentId::from_digest([0; 32])
}

const fn default_one() -> u32 {
    1
}
