//! The two engines: one runs components from a pool, the other, in a child process, compiles for it.
//!
//! Both are made from the same [`code`] settings, since those shape the machine code; a compiled component of one is
//! refused by the other where they differ. Only the running one has a pool: its address space alone would exceed the
//! memory limit of the compiling process.

use std::hash::{Hash as _, Hasher as _};

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, WasmBacktraceDetails,
};

/// Bytes of stack a guest may use for its calls (its own stack in linear memory counts as memory).
pub(crate) const STACK_BYTES: usize = 512 << 10;

/// Bytes of linear memory that a slot of the pool reserves, the most a manifest may grant.
pub(crate) const MEMORY_BYTES: usize = 64 << 20;

/// Elements of a table; an interpreter compiled to WebAssembly has up to 15,000 functions in one.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;

/// The settings that compiled code depends on.
fn code() -> Config {
    let mut config = Config::new();
    // How much of it a component may have is a matter of its compiler.
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config.epoch_interruption(true);
    // Answers must not depend on the machine, or a recording could not be replayed on another.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    // Asynchronous component functions would put every call on a path four times as slow.
    config.concurrency_support(false);
    config.max_wasm_stack(STACK_BYTES);
    config.async_stack_size(4 * STACK_BYTES);
    config.memory_init_cow(true);
    // Without these a slot reserves 4 GiB of address space, and ten thousand do not fit.
    config.memory_reservation(MEMORY_BYTES as u64);
    config.memory_reservation_for_growth(0);
    config.memory_guard_size(64 << 10);
    config.memory_may_move(false);
    config
}

/// An engine to compile with.
pub(crate) fn compiling() -> Result<Engine> {
    Engine::new(&code())
}

/// An engine with room for `instances` component instances.
pub(crate) fn running(instances: u32) -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances);
    // What one component consists of: a Rust guest of up to 4 core instances, QuickJS of 9, Python of 14.
    pool.total_core_instances(instances.saturating_mul(16));
    pool.total_memories(instances.saturating_mul(2));
    pool.total_tables(instances.saturating_mul(8));
    pool.total_stacks(instances);
    pool.max_memory_size(MEMORY_BYTES);
    pool.table_elements(TABLE_ELEMENTS);
    pool.max_core_instance_size(1 << 20);
    pool.max_component_instance_size(1 << 20);
    pool.max_tables_per_module(4);
    let mut config = code();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// A number that differs between engines whose compiled code does not fit the other.
pub(crate) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_engine_compiles_fits_the_other() {
        let (one, other) = (compiling().unwrap(), running(4).unwrap());
        assert_eq!(compatibility(&one), compatibility(&other));
    }
}
