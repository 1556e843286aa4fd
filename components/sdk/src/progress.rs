//! The role `progress`: the updates that users see.

pub use crate::bindings::reporter::exports::weir::pipeline::progress::{
    BatchRasterized, DocumentEnded, DocumentStarted, Event, PageDone, PageFailed, Update,
};

/// The role `progress`.
pub trait Progress {
    /// Returns the updates for users after an event, if any. `at_millis` counts from the job's start.
    fn observe(&mut self, at_millis: u64, event: Event) -> Vec<Update>;
}
