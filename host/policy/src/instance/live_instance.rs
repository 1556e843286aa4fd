//! A component instance that is ready to be called, and the limits of its calls.

use wasmtime::Store;

use crate::bindings::{batching, chunking, progress, routing};
use crate::instance::instance_data::InstanceData;

/// Resource handles that an instance may hold at a time. An interpreter holds only a few.
pub(crate) const MAX_HANDLES: usize = 1024;

/// Limits of the policy calls of one job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallLimits {
    /// Milliseconds of CPU time that a call may take.
    pub(crate) timeout_millis: u32,
    /// Bytes of linear memory of an instance.
    pub(crate) max_memory_bytes: usize,
    /// Bytes that a component may pass to the host in one call.
    pub(crate) max_output_bytes: usize,
}

/// A component instance with its store and its exported functions.
pub(crate) struct LiveInstance {
    pub(crate) store: Store<InstanceData>,
    pub(crate) exports: ExportsByRole,
}

/// The exported functions of the roles that the instance has in its job.
pub(crate) struct ExportsByRole {
    pub(crate) batching: Option<batching::Guest>,
    pub(crate) routing: Option<routing::Guest>,
    pub(crate) chunking: Option<chunking::Guest>,
    pub(crate) progress: Option<progress::Guest>,
}
