//! Tenants' decisions, made by WebAssembly components that are held to limits.
//!
//! A component is somebody else's code in our process. Everything here follows from that: it is compiled in a process
//! of its own (`compiler`), linked against nothing but what its manifest grants (`link`, `capabilities`, `wasi`),
//! instantiated in a pool of fixed shape (`engine`), called under a deadline, a memory cap, a stack cap and an output
//! cap (`instance`), its answers are checked against the ranges of the contract before anyone sees them (`roles`),
//! and what it does wrong becomes a typed error that names the guest's function (`failure`).
//!
//! The other side of the bargain is that a decision must cost next to nothing, or nobody would hand a decision per page
//! to a guest. So calls take the synchronous component ABI on a fiber, the deadline is a tick that a short call never
//! sees, and recording a call moves its arguments into a list that a thread writes out later.

mod aside;
mod bindings;
mod capabilities;
mod compiler;
mod config;
mod engine;
mod failure;
mod gate;
mod guest;
mod heard;
mod host;
mod house;
mod instance;
mod job;
mod library;
mod link;
mod live;
mod measures;
mod recording;
mod replay;
mod report;
mod roles;
mod state;
mod stats;
mod ticker;
mod turn;
mod wasi;

pub use compiler::compile_main;
pub use config::PolicyConfig;
pub use heard::Heard;
pub use host::PolicyHost;
pub use job::Job;
pub use recording::{Assigned, Call, Component, Exchange, Frame, Opened, Retention, read_recording};
pub use stats::{HostStats, JobStats};
