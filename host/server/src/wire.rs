//! What goes over the wire: extractors whose refusals are problems.

mod extract;

pub(crate) use extract::{Body, Params, Route};
