//! How many pages to take next, and how finely to draw them.

pub use crate::bindings::batcher::exports::weir::pipeline::batching::{Batch, Device, DeviceKind, Situation};

/// The role `batching`.
pub trait Batching {
    /// The next batch of a document. Asked before each; there is always at least one page left.
    fn plan(&mut self, situation: Situation) -> Batch;
}
