//! Runs tenants' WebAssembly components, which make the decisions of a pipeline, and enforces limits on them.
//!
//! A component is untrusted code in the host's process, so every step limits it:
//!
//! - `compiler` compiles it in a child process.
//! - `linked_component`, `capabilities` and `wasi_linker` link it against the capabilities that its manifest grants,
//!   and nothing else.
//! - `wasm_engine` creates its instances in a pool of fixed size.
//! - `instance` calls it under a call timeout, a memory limit, a stack limit and an output limit.
//! - `roles` checks its decisions against the ranges of the contract before the engine sees them.
//! - `instance::call_failure` turns its failures into typed errors that name the guest's function.
//!
//! A policy call must cost about a microsecond, because pipelines make one for each page. So calls use the synchronous
//! component ABI on a fiber, a short call never reaches the tick that enforces the call timeout, and recording a call only
//! moves its arguments into a list, which a thread stores later.

mod bindings;
mod call_metrics;
mod capabilities;
mod capability_trace;
mod compiler;
mod component_inspection;
mod config;
mod epoch_ticker;
mod host;
mod instance;
mod linked_component;
mod linked_component_cache;
mod offload_executor;
mod recording;
mod replay;
mod roles;
mod stats;
mod unavailable_capabilities;
mod wasi_linker;
mod wasm_engine;
mod wasm_job_policy;

pub use capability_trace::RecordedResponse;
pub use compiler::compile_main;
pub use config::PolicyHostConfig;
pub use host::PolicyHost;
pub use recording::{
    PolicyFunctionCall, PolicyFunctionInvocation, RecordedCall, RecordedComponent, RecordedDecision,
    RecordingFrame, Retention, RoleAssignment, SessionHeader, decode_frames, read_recording,
};
pub use stats::{HostStats, JobPolicyCallStats};
pub use wasm_job_policy::WasmJobPolicy;
