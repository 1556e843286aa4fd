//! What goes over the wire: extractors whose refusals are problems, and bodies that have to keep coming.

mod body;
mod extract;

pub(crate) use body::Paced;
pub(crate) use extract::{Body, Params, Route, maybe_object, object};
