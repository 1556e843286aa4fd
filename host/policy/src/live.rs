//! An instance that can be called, and what its calls are kept to.

use wasmtime::Store;

use crate::bindings::{batching, chunking, progress, routing};
use crate::guest::Guest;

/// Handles of resources that an instance may hold at one time. An interpreter holds a handful.
pub(crate) const HANDLES: usize = 1024;

/// Limits of a component's calls in one job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallLimits {
    /// Milliseconds of CPU a call may take.
    pub(crate) millis: u32,
    /// Bytes of memory.
    pub(crate) memory_bytes: usize,
    /// Bytes handed over in one call.
    pub(crate) output_bytes: usize,
}

/// An instance that can be called.
pub(crate) struct Live {
    pub(crate) store: Store<Guest>,
    pub(crate) roles: Roles,
}

/// The functions of the roles it was made for.
pub(crate) struct Roles {
    pub(crate) batching: Option<batching::Guest>,
    pub(crate) routing: Option<routing::Guest>,
    pub(crate) chunking: Option<chunking::Guest>,
    pub(crate) progress: Option<progress::Guest>,
}
