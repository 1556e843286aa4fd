//! The role `batching`: the number of pages in the next batch, and their resolution.

pub use crate::bindings::batcher::exports::weir::pipeline::batching::{Batch, Device, DeviceKind, Situation};

/// The role `batching`.
pub trait Batching {
    /// Plans the next batch of a document. Called before each batch, while at least one page is left.
    fn plan(&mut self, situation: Situation) -> Batch;
}
