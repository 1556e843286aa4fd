//! What went wrong inside a guest, as one of our errors.
//!
//! The reason names the guest's functions, innermost first, and what the guest said about it (a panic's message, an
//! exception), because the person who reads it wrote the guest and not the host.

use std::collections::HashMap;

use wasmtime::{Error, FrameInfo, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use weir_core::PolicyError;
use weir_core::event::ErrorNote;
use weir_core::said::Frame;

use crate::engine::STACK_BYTES;
use crate::guest::{Excess, Guest, Impatience, PATIENCE, one_line};
use crate::live::HANDLES;

/// Functions named in a reason, and in a report.
const NAMED: usize = 3;
const FRAMES: usize = 20;
/// Characters of a function's or a file's name.
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

/// Why a call did not return, and what can be told of it.
pub(crate) struct Explained {
    pub(crate) error: PolicyError,
    /// The guest's own words, which may have several lines.
    pub(crate) said: Option<String>,
    /// Where it was, innermost first.
    pub(crate) backtrace: Vec<Frame>,
}

impl Explained {
    /// An error about which there is no more to tell.
    pub(crate) const fn plainly(error: PolicyError) -> Self {
        Self {
            error,
            said: None,
            backtrace: Vec::new(),
        }
    }
}

impl Failed {
    /// Explains the error a call ended with.
    pub(crate) fn explain(&self, error: &Error, guest: &mut Guest) -> Explained {
        let frames = frames(error);
        let said = guest.take_complaint();
        let backtrace: Vec<Frame> = frames
            .iter()
            .skip_while(|frame| is_machinery(frame))
            .take(FRAMES)
            .cloned()
            .collect();
        Explained {
            error: self.error(error, guest, &frames, said.as_deref(), &backtrace),
            said: said.map(|words| lines_of(&words)),
            backtrace,
        }
    }

    fn error(
        &self,
        error: &Error,
        guest: &Guest,
        frames: &[Frame],
        said: Option<&str>,
        backtrace: &[Frame],
    ) -> PolicyError {
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
        if error.is::<Impatience>() {
            return PolicyError::Deadline {
                component,
                function,
                millis: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
            };
        }
        let trap = error.downcast_ref::<Trap>().copied();
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
            Some(Trap::MemoryOutOfBounds) if runaway(frames) => {
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
        if let Some(words) = said {
            reason = format!("{reason}: {}", last_words(words));
        }
        let own = backtrace.iter().filter(|frame| !is_machinery(frame));
        let named: Vec<String> = own.take(NAMED).map(in_short).collect();
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

/// As recordings and components carry it.
pub(crate) fn note(error: &PolicyError) -> ErrorNote {
    ErrorNote {
        kind: error.kind().into(),
        message: error.to_string(),
    }
}

/// The guest's functions, innermost first.
fn frames(error: &Error) -> Vec<Frame> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    backtrace.frames().iter().flat_map(functions).collect()
}

/// The functions of a frame: one, or where the component tells, all that were inlined into it.
fn functions(frame: &FrameInfo) -> Vec<Frame> {
    let whole = || match frame.func_name() {
        Some(name) => named(name),
        None => format!("function {}", frame.func_index()),
    };
    let symbols = frame.symbols().iter().map(|symbol| Frame {
        function: symbol.name().map_or_else(whole, named),
        file: symbol.file().map(|file| one_line(file, NAME)),
        line: symbol.line().filter(|line| *line > 0),
    });
    let mut functions: Vec<Frame> = symbols.collect();
    match functions.last_mut() {
        // Line tables name a function without the module it is in.
        Some(outermost) => outermost.function = whole(),
        None => functions.push(Frame {
            function: whole(),
            file: None,
            line: None,
        }),
    }
    functions
}

fn named(symbol: &str) -> String {
    shortened(&format!("{:#}", rustc_demangle::demangle(symbol)))
}

fn in_short(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} at {file}:{line}", frame.function),
        _ => frame.function.clone(),
    }
}

/// The end of a guest's words on one line: exceptions say last what they are.
fn last_words(words: &str) -> String {
    let line = words.lines().map(str::trim).collect::<Vec<_>>().join(" | ");
    let cut = line.chars().count().saturating_sub(WORDS);
    one_line(&line.chars().skip(cut).collect::<String>(), WORDS)
}

/// The same words without anything that moves a cursor; their lines stay lines.
fn lines_of(words: &str) -> String {
    let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    words.chars().map(plain).collect()
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
fn is_machinery(frame: &Frame) -> bool {
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
    let of_library = |file: &String| file.contains("/library/std/") || file.contains("/library/core/");
    frame.file.as_ref().is_some_and(of_library)
        || PREFIXES.iter().any(|prefix| frame.function.starts_with(prefix))
}

fn runaway(frames: &[Frame]) -> bool {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for frame in frames {
        *times.entry(&frame.function).or_default() += 1;
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
