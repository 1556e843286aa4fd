//! One arena for all models on a CPU.
//!
//! What a run computes with is freed and asked for again by the next; an arena saves the page faults of fresh memory (a
//! fifth of the time of a convolutional model) and holds on to the most that was ever needed at once. With an arena for
//! each session that is the sum of every model's most on every worker. With one arena for all it is the most of what runs
//! at the same time, which on a scan is two thirds of that.

#![allow(unsafe_code)]

use std::ptr;

use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

/// Gives the environment an arena for the memory of the CPU. Sessions take it that are opened with
/// [`with_env_allocators`](ort::session::builder::SessionBuilder::with_env_allocators).
pub(crate) fn register(environment: &Environment) -> ort::Result<()> {
    let memory = MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Arena,
        MemoryType::Default,
    )?;
    // SAFETY: both pointers are those of values that live through the call; without a configuration the arena has ONNX
    // Runtime's own: it grows by powers of two and touches what is used.
    unsafe {
        ort::Error::result_from_status((ort::api().CreateAndRegisterAllocator)(
            environment.ptr().cast_mut(),
            memory.ptr(),
            ptr::null(),
        ))
    }
}
