//! Attacks of a component on its host. Each continues until the host stops it, except [`flood_log`].

use std::hint::black_box;

use crate::sleep_bindings::wasi::clocks::monotonic_clock;

/// Loops forever.
pub fn loop_forever() {
    loop {
        black_box(());
    }
}

/// Panics. The message must appear in the tenant's log, and the function's name in the error.
pub fn trap() {
    panic!("the weir is broken");
}

/// Allocates memory without end.
pub fn exhaust_memory() {
    loop {
        black_box(vec![1_u8; 1 << 20].leak());
    }
}

/// Recurses without end.
pub fn overflow_stack() {
    black_box(recurse(0));
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 8]);
    recurse(black_box(depth + 1)) + frame.iter().sum::<u64>()
}

/// Copies nearly all of its memory repeatedly. Each copy is a single instruction that the host cannot interrupt.
pub fn copy_memory_forever() {
    let mut bytes = vec![1_u8; 20 << 20];
    let end = bytes.len() - 1;
    loop {
        bytes.copy_within(..end, 1);
        black_box(&mut bytes);
    }
}

/// Writes more and longer lines than the log accepts.
pub fn flood_log() {
    let line = "a".repeat(10_000);
    for _ in 0..2_000 {
        weir_sdk::log::info(&line);
    }
}

/// Writes log lines without end.
pub fn flood_log_forever() {
    loop {
        flood_log();
    }
}

/// Fills the state with values of the largest size until a write is refused. Panics with the refusal.
pub fn fill_state() {
    let value = vec![7; 64 << 10];
    for key in 0_u64.. {
        if let Err(refused) = weir_sdk::state::set(&key.to_string(), &value) {
            panic!("{refused:?}");
        }
    }
}

/// Calls the host without end and ignores the responses.
pub fn flood_host_calls() {
    for number in 0_u64.. {
        black_box(weir_sdk::inference::count_tokens(&number.to_string())).ok();
    }
}

/// Collects handles and never drops them.
pub fn leak_handles() {
    let mut held = Vec::new();
    loop {
        held.push(monotonic_clock::subscribe_duration(1));
    }
}

/// Sleeps forever, one day at a time.
pub fn sleep_forever() {
    loop {
        monotonic_clock::subscribe_duration(86_400_000_000_000).block();
    }
}

/// Returns 100 strings of 1 MiB that all share the same memory.
pub fn shared_hundred_mebibytes() -> Vec<String> {
    let text: &'static mut [u8] = vec![b'a'; 1 << 20].leak();
    let (start, length) = (text.as_mut_ptr(), text.len());
    // SAFETY: the strings must never be dropped. They are not: the host ends a call with this much output before the guest frees
    // its memory.
    (0..100)
        .map(|_| unsafe { String::from_raw_parts(start, length, length) })
        .collect()
}
