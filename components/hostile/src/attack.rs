//! What a component can do to its host. Each goes on until it is stopped.

use std::hint::black_box;

use crate::waiting::wasi::clocks::monotonic_clock;

/// Never answers.
pub fn endless() {
    loop {
        black_box(());
    }
}

/// Panics; the message must reach the tenant's log, the function's name the error.
pub fn trap() {
    panic!("the weir is broken");
}

/// Takes memory until there is no more.
pub fn memory() {
    loop {
        black_box(vec![1_u8; 1 << 20].leak());
    }
}

/// Calls itself until the stack is full.
pub fn stack() {
    black_box(deeper(0));
}

#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 8]);
    deeper(black_box(depth + 1)) + frame.iter().sum::<u64>()
}

/// Moves nearly all of its memory to and fro. Each move is a single instruction, in which nobody can interrupt it.
pub fn copy() {
    let mut bytes = vec![1_u8; 20 << 20];
    let end = bytes.len() - 1;
    loop {
        bytes.copy_within(..end, 1);
        black_box(&mut bytes);
    }
}

/// Writes more lines, and longer ones, than the log takes.
pub fn log() {
    let line = "a".repeat(10_000);
    for _ in 0..2_000 {
        weir_sdk::log::info(&line);
    }
}

/// Writes lines without end.
pub fn endless_log() {
    loop {
        log();
    }
}

/// Fills the state with as much as a value may be, until it is refused, and says by what.
pub fn state() {
    let value = vec![7; 64 << 10];
    for key in 0_u64.. {
        if let Err(refused) = weir_sdk::state::set(&key.to_string(), &value) {
            panic!("{refused:?}");
        }
    }
}

/// Asks the host for one thing after the other, and does not care what it answers.
pub fn questions() {
    for number in 0_u64.. {
        black_box(weir_sdk::inference::count_tokens(&number.to_string())).ok();
    }
}

/// Collects handles and gives none back.
pub fn handles() {
    let mut held = Vec::new();
    loop {
        held.push(monotonic_clock::subscribe_duration(1));
    }
}

/// Sleeps for a day, and then for another.
pub fn sleep() {
    loop {
        monotonic_clock::subscribe_duration(86_400_000_000_000).block();
    }
}

/// A text of 100 MiB that takes one: the same mebibyte again and again.
pub fn hundred_mebibytes() -> Vec<String> {
    let text: &'static mut [u8] = vec![b'a'; 1 << 20].leak();
    let (start, length) = (text.as_mut_ptr(), text.len());
    // SAFETY: what is returned must not be dropped, and is not: the host ends a call with such an answer before it gives
    // the answer's memory back.
    (0..100)
        .map(|_| unsafe { String::from_raw_parts(start, length, length) })
        .collect()
}
