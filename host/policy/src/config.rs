//! What a [`PolicyHost`](crate::PolicyHost) has to be told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use weir_core::ports::PolicyState;
use weir_core::usage::Meter;

use crate::recording::Retention;

/// Limits, places and ports of a [`PolicyHost`](crate::PolicyHost). Numbers are the settings `policy.*` of their names.
pub struct PolicyConfig {
    /// Component instances alive at once, 1 to 10,000. A job takes one for each of its components and one for each
    /// default component that may have to stand in.
    pub instances: u32,
    /// Milliseconds a call may run, where the manifest does not say.
    pub call_millis: u32,
    /// Bytes of memory of an instance, where the manifest does not say; at most 64 MiB.
    pub memory_bytes: u64,
    /// Bytes a component may hand over in one call, be it an answer or an argument.
    pub output_bytes: u64,
    /// Seconds of CPU that compiling a component may take.
    pub compile_seconds: u32,
    /// Bytes of address space that compiling a component may take.
    pub compile_bytes: u64,
    /// The program that compiles, with its leading arguments: `<component.wasm> <compiled>` are appended. It must end in
    /// [`compile_main`](crate::compile_main) of the same build.
    pub compile_command: Vec<OsString>,
    /// Folder for compiled components. It holds native code that this process will run, so it is made readable and
    /// writable for this user alone.
    pub cache: PathBuf,
    /// Bytes that it may hold.
    pub cache_bytes: u64,
    /// Components that stay in memory, if no more than these are in use.
    pub loaded_components: u32,
    /// Folder for the recorded calls of jobs; `None` if there are none.
    pub recordings: Option<PathBuf>,
    /// Whether jobs are recorded there. If not, earlier recordings are still read and removed.
    pub record: bool,
    /// How long they are kept.
    pub retention: Retention,
    /// What components remember from job to job.
    pub state: Arc<dyn PolicyState>,
    /// Hears how long each tenant's components run, if tenants' usage is metered: now and then while a job runs, and at its
    /// end.
    pub meter: Option<Arc<dyn Meter>>,
}
