//! The instances of components in a job: their limits, their data and their calls.

pub(crate) mod call_failure;
pub(crate) mod cpu_budget;
pub(crate) mod guest_wasi;
pub(crate) mod instance_data;
pub(crate) mod instance_slot;
pub(crate) mod job_context;
pub(crate) mod pending_state_changes;
