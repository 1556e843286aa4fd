//! Configuration of a [`PolicyHost`](crate::PolicyHost).

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use weir_core::ports::ComponentStateStore;
use weir_core::recording::RecordingStore;
use weir_core::usage::UsageMeter;

use crate::recording::Retention;

/// Limits, folders and ports of a [`PolicyHost`](crate::PolicyHost). The numbers come from the settings `policy.*`.
pub struct PolicyHostConfig {
    /// Component instances of all open jobs, 1 to 10,000. A job reserves one for each of its components and one for each
    /// default component that is a fallback.
    pub max_instances: u32,
    /// Milliseconds of CPU time that a policy call may take, if the manifest does not set a limit.
    pub call_timeout_millis: u32,
    /// Bytes of memory of an instance, if the manifest does not set a limit; at most 64 MiB.
    pub max_memory_bytes: u64,
    /// Bytes that a component may pass to the host in one policy call, as its decision or as arguments of host calls.
    pub max_output_bytes: u64,
    /// Seconds of CPU time that compiling a component may take.
    pub max_compile_cpu_seconds: u32,
    /// Bytes of address space that compiling a component may take.
    pub max_compile_memory_bytes: u64,
    /// Command that compiles a component: a program and its first arguments. The host appends `<component.wasm> <compiled>`.
    /// The program must run [`compile_main`](crate::compile_main) of the same build.
    pub compile_command: Vec<OsString>,
    /// Folder of compiled components. It holds native code that this process runs, so the host makes it readable and
    /// writable for its own user only.
    pub cache_folder: PathBuf,
    /// Bytes of compiled components that the folder may hold.
    pub max_cache_bytes: u64,
    /// Components that stay loaded in memory. More are loaded only while more are in use.
    pub max_loaded_components: u32,
    /// Store of recordings; `None` disables recording and replay.
    pub recordings: Option<Arc<dyn RecordingStore>>,
    /// Whether new jobs are recorded. If not, existing recordings can still be replayed and are still removed when they expire.
    pub record_calls: bool,
    /// How long recordings are kept.
    pub retention: Retention,
    /// Key-value state that components keep from job to job.
    pub state: Arc<dyn ComponentStateStore>,
    /// Receives the CPU time of each tenant's components: while a job runs, when it ends, and after a compilation. `None` if
    /// usage is not metered.
    pub usage_meter: Option<Arc<dyn UsageMeter>>,
}
