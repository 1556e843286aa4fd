//! What the user is told.

pub use crate::bindings::reporter::exports::weir::pipeline::progress::{
    BatchRasterized, DocumentEnded, DocumentStarted, Event, PageDone, PageFailed, Update,
};

/// The role `progress`.
pub trait Progress {
    /// What the user should see after an event, if anything. `at_millis` counts from the job's start.
    fn observe(&mut self, at_millis: u64, event: Event) -> Vec<Update>;
}
