//! The two wasmtime engines: the host's engine runs components from a pool, the child process's engine compiles them.
//!
//! Both use the same [`code_generation_config`], because it determines the machine code, and wasmtime rejects compiled code
//! whose settings differ. Only the host's engine has an instance pool: the address space of a pool exceeds the memory
//! limit of the child process.

use std::hash::{Hash as _, Hasher as _};

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, WasmBacktraceDetails,
};

/// Bytes of native stack that a guest may use. A stack that the guest keeps in linear memory counts as memory.
pub(crate) const MAX_STACK_BYTES: usize = 512 << 10;

/// Bytes of linear memory that a slot of the pool reserves: the upper bound of the memory limit in a manifest.
pub(crate) const MAX_MEMORY_BYTES: usize = 64 << 20;

/// Elements of a table. An interpreter compiled to WebAssembly has up to 15,000 functions in one table.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Returns the settings that determine the compiled code.
fn code_generation_config() -> Config {
    let mut config = Config::new();
    // Debug information gives backtraces file names and lines. The child process removes it where there is too much.
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config.epoch_interruption(true);
    // Decisions must not depend on the machine, or a recording could not be replayed on another machine.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    // With asynchronous component functions every call would take four times as long.
    config.concurrency_support(false);
    config.max_wasm_stack(MAX_STACK_BYTES);
    config.async_stack_size(4 * MAX_STACK_BYTES);
    config.memory_init_cow(true);
    // By default a slot reserves 4 GiB of address space, and ten thousand of those do not fit.
    config.memory_reservation(MAX_MEMORY_BYTES as u64);
    config.memory_reservation_for_growth(0);
    config.memory_guard_size(64 << 10);
    config.memory_may_move(false);
    config
}

/// Creates the engine of the child process, which only compiles.
pub(crate) fn new_compiling_engine() -> Result<Engine> {
    Engine::new(&code_generation_config())
}

/// Creates the engine of the host, with a pool of `instances` component instances.
pub(crate) fn new_pooling_engine(instances: u32) -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances);
    // Core instances of one component: up to 4 for a Rust guest, 9 for QuickJS, 14 for Python.
    pool.total_core_instances(instances.saturating_mul(16));
    pool.total_memories(instances.saturating_mul(2));
    pool.total_tables(instances.saturating_mul(8));
    pool.total_stacks(instances);
    pool.max_memory_size(MAX_MEMORY_BYTES);
    pool.table_elements(MAX_TABLE_ELEMENTS);
    pool.max_core_instance_size(1 << 20);
    pool.max_component_instance_size(1 << 20);
    pool.max_tables_per_module(4);
    let mut config = code_generation_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// Returns a hash that differs between engines that cannot load each other's compiled code.
pub(crate) fn compatibility_hash(engine: &Engine) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_have_the_same_compatibility_hash() {
        let (one, other) = (new_compiling_engine().unwrap(), new_pooling_engine(4).unwrap());
        assert_eq!(compatibility_hash(&one), compatibility_hash(&other));
    }
}
