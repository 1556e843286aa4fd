//! What went wrong inside a guest, as one of our errors.
//!
//! The reason names the guest's functions, innermost first, and what the guest said about it (a panic's message, an
//! exception), because the person who reads it wrote the guest and not the host.

use std::collections::HashMap;

use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use weir_core::PolicyError;

use crate::engine::STACK_BYTES;
use crate::guest::{Excess, Guest, one_line};
use crate::instance::HANDLES;

/// Functions named in a reason.
const NAMED: usize = 6;
/// Characters of a function's name.
const NAME: usize = 120;
/// Characters of a guest's own words.
const WORDS: usize = 600;
/// Frames that wasmtime captured, at least, when the same function fills half of them: a runaway recursion.
const DEEP: usize = 16;

/// Which call failed, and under which limits.
pub(crate) struct Failed {
    pub(crate) function: &'static str,
    pub(crate) millis: u32,
    pub(crate) output_bytes: usize,
}

impl Failed {
    /// Explains the error a call ended with.
    pub(crate) fn explain(&self, error: &Error, guest: &mut Guest) -> PolicyError {
        let component = guest.component.to_string();
        let function = self.function;
        let limit = |limit: String| PolicyError::Limit {
            component: component.clone(),
            function,
            limit,
        };
        if let Some(Excess(what)) = error.downcast_ref() {
            return limit(what.clone());
        }
        let trap = error.downcast_ref::<Trap>().copied();
        let frames = frames(error);
        match trap {
            Some(Trap::Interrupt) => {
                return PolicyError::Deadline {
                    component,
                    function,
                    millis: self.millis.into(),
                };
            }
            Some(Trap::StackOverflow) => return limit(format!("{STACK_BYTES} bytes of stack")),
            // A Rust guest keeps its own stack at the low end of its memory and runs off that end.
            Some(Trap::MemoryOutOfBounds) if runaway(&frames) => {
                return limit("the stack it was built with".into());
            }
            _ if guest.was_denied_memory() => {
                return limit(format!("{} bytes of memory", guest.memory_limit()));
            }
            None if is_handles(error) => return limit(format!("{HANDLES} handles")),
            None if is_output(error) => return limit(format!("{} bytes of output", self.output_bytes)),
            _ => {}
        }
        let mut reason = match (trap, error.downcast_ref::<I32Exit>()) {
            (Some(trap), _) => trap.to_string().replace("wasm trap: ", ""),
            (None, Some(exit)) => format!("it exited with code {}", exit.0),
            (None, None) => one_line(&error.root_cause().to_string(), WORDS),
        };
        if let Some(words) = guest.take_complaint() {
            reason = format!("{reason}: {}", one_line(&words, WORDS));
        }
        let named: Vec<&str> = frames
            .iter()
            .map(String::as_str)
            .skip_while(|name| is_machinery(name))
            .take(NAMED)
            .collect();
        if !named.is_empty() {
            reason = format!("{reason} (in {})", named.join(" ← "));
        }
        PolicyError::Trap {
            component,
            function,
            reason,
        }
    }
}

/// Names of the guest's functions, innermost first.
fn frames(error: &Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    backtrace
        .frames()
        .iter()
        .map(|frame| match frame.func_name() {
            Some(name) => shortened(&format!("{:#}", rustc_demangle::demangle(name))),
            None => format!("function {}", frame.func_index()),
        })
        .collect()
}

/// A name of bearable length: that of a generic function carries all its types.
fn shortened(name: &str) -> String {
    let short = one_line(name, NAME);
    if short.len() < name.len() {
        short + "…"
    } else {
        short
    }
}

/// Functions of the language that stand between a panic and its cause.
fn is_machinery(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "std::",
        "core::",
        "alloc::",
        "__rust",
        "rust_",
        "_rust",
        "__rustc",
        "abort",
        "<core::",
        "<alloc::",
        "<std::",
        "dlmalloc",
        "<dlmalloc",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn runaway(frames: &[String]) -> bool {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for frame in frames {
        *times.entry(frame).or_default() += 1;
    }
    frames.len() >= DEEP && times.values().any(|&n| n * 2 >= frames.len())
}

/// Whether the error is the one for too many bytes handed over. Neither it nor the next has a type of its own in wasmtime, so
/// their words have to do; the tests with components that do these things notice when they change.
fn is_output(error: &Error) -> bool {
    error
        .root_cause()
        .to_string()
        .contains("fuel allocated for hostcalls")
}

/// Whether the error is the one for too many handles.
fn is_handles(error: &Error) -> bool {
    error
        .root_cause()
        .to_string()
        .contains("store handle limit exceeded")
}
