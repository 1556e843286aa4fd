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
mod defaults;
mod label;
mod policy_function_input;
mod progress;
mod routing;
mod stage_state;

pub use batching::{BatchContext, BatchPlan, ComputeDevice, DeviceKind};
pub use chunking::{Heading, PageTextToSplit, SectionToSummarize, SummaryPlan, SummaryPrompt};
pub use label::Label;
pub use policy_function_input::PolicyFunctionInput;
pub use progress::{ObservedEvent, ProgressUpdate, TimedEvent};
pub use routing::{
    DocumentFacts, DocumentRoute, FailureAction, ModelPreferences, PageRoute, PageStageFailure, PageToRoute,
    ReadingMethod,
};
pub use stage_state::{QueueState, StageTiming, StageTotals};
