//! Turns the error of a failed policy call into a [`PolicyError`].
//!
//! The reason names the guest's functions, innermost first, and includes the guest's own message (of a panic or an exception).
//! Its readers are the authors of components, who know the guest's code and not the host's.

use std::collections::HashMap;

use wasmtime::{Error, FrameInfo, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use weir_core::PolicyError;
use weir_core::component_log::BacktraceFrame;
use weir_core::event::ErrorInfo;

use crate::instance::instance_data::{
    HOST_CALL_TIMEOUT, HostCallLimitExceeded, HostCallTimedOut, InstanceData, MAX_HANDLES,
    truncate_to_single_line,
};
use crate::wasm_engine::MAX_STACK_BYTES;

/// Functions named in an error's reason.
const MAX_NAMED_FUNCTIONS: usize = 3;
/// Frames in the backtrace of a failure report.
const MAX_BACKTRACE_FRAMES: usize = 20;
/// Characters of the name of a function or file.
const MAX_NAME_CHARS: usize = 120;
/// Characters of the guest's message in an error's reason.
const MAX_MESSAGE_CHARS: usize = 600;
/// A backtrace of at least this many frames is a runaway recursion if one function fills half of it.
const MIN_RECURSION_FRAMES: usize = 16;

/// The function and the limits of a failed call.
pub(crate) struct FailedCallContext {
    pub(crate) function: &'static str,
    pub(crate) timeout_millis: u32,
    pub(crate) max_output_bytes: usize,
}

/// The error of a failed call, with the details for the failure report.
pub(crate) struct FailureExplanation {
    pub(crate) error: PolicyError,
    /// The guest's own message, which may have several lines.
    pub(crate) guest_message: Option<String>,
    /// The guest's functions, innermost first.
    pub(crate) backtrace: Vec<BacktraceFrame>,
}

impl FailureExplanation {
    /// Returns an explanation that has only the error.
    pub(crate) const fn from_error_without_details(error: PolicyError) -> Self {
        Self {
            error,
            guest_message: None,
            backtrace: Vec::new(),
        }
    }
}

impl FailedCallContext {
    /// Turns the error that a call ended with into an explanation.
    pub(crate) fn explain_error(&self, error: &Error, guest: &mut InstanceData) -> FailureExplanation {
        let frames = collect_guest_frames(error);
        let message = guest.take_error_message();
        let backtrace: Vec<BacktraceFrame> = frames
            .iter()
            .skip_while(|frame| is_language_runtime_frame(frame))
            .take(MAX_BACKTRACE_FRAMES)
            .cloned()
            .collect();
        FailureExplanation {
            error: self.to_policy_error(error, guest, &frames, message.as_deref(), &backtrace),
            guest_message: message.map(|message| replace_control_characters(&message)),
            backtrace,
        }
    }

    fn to_policy_error(
        &self,
        error: &Error,
        guest: &InstanceData,
        frames: &[BacktraceFrame],
        message: Option<&str>,
        backtrace: &[BacktraceFrame],
    ) -> PolicyError {
        let component = guest.component_name.to_string();
        let function = self.function;
        let limit = |limit: String| PolicyError::LimitExceeded {
            component: component.clone(),
            function,
            limit,
        };
        if let Some(HostCallLimitExceeded(exceeded)) = error.downcast_ref() {
            return limit(exceeded.clone());
        }
        if error.is::<HostCallTimedOut>() {
            return PolicyError::CallTimeout {
                component,
                function,
                millis: u64::try_from(HOST_CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            };
        }
        let trap = error.downcast_ref::<Trap>().copied();
        match trap {
            Some(Trap::Interrupt) => {
                return PolicyError::CallTimeout {
                    component,
                    function,
                    millis: self.timeout_millis.into(),
                };
            }
            Some(Trap::StackOverflow) => return limit(format!("{MAX_STACK_BYTES} bytes of stack")),
            // A Rust guest keeps its own stack at the low end of its memory; an overflow leaves the memory there.
            Some(Trap::MemoryOutOfBounds) if is_runaway_recursion(frames) => {
                return limit("the stack it was built with".into());
            }
            _ if guest.was_denied_memory() => {
                return limit(format!("{} bytes of memory", guest.max_memory_bytes()));
            }
            None if is_handle_limit_error(error) => return limit(format!("{MAX_HANDLES} handles")),
            None if is_output_limit_error(error) => {
                return limit(format!("{} bytes of output", self.max_output_bytes));
            }
            _ => {}
        }
        let mut reason = match (trap, error.downcast_ref::<I32Exit>()) {
            (Some(trap), _) => trap.to_string().replace("wasm trap: ", ""),
            (None, Some(exit)) => format!("it exited with code {}", exit.0),
            (None, None) => truncate_to_single_line(&error.root_cause().to_string(), MAX_MESSAGE_CHARS),
        };
        if let Some(message) = message {
            reason = format!("{reason}: {}", tail_of_message(message));
        }
        let guest_frames = backtrace.iter().filter(|frame| !is_language_runtime_frame(frame));
        let named: Vec<String> = guest_frames.take(MAX_NAMED_FUNCTIONS).map(format_frame).collect();
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

/// Converts an error to the form that is recorded.
pub(crate) fn to_error_info(error: &PolicyError) -> ErrorInfo {
    ErrorInfo {
        kind: error.kind().into(),
        message: error.to_string(),
    }
}

/// Returns the frames of the guest's functions, innermost first.
fn collect_guest_frames(error: &Error) -> Vec<BacktraceFrame> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    backtrace.frames().iter().flat_map(functions_in_frame).collect()
}

/// Returns the functions of a frame. With debug information, these include the functions that were inlined into it.
fn functions_in_frame(frame: &FrameInfo) -> Vec<BacktraceFrame> {
    let frame_function_name = || match frame.func_name() {
        Some(name) => demangle_name(name),
        None => format!("function {}", frame.func_index()),
    };
    let symbols = frame.symbols().iter().map(|symbol| BacktraceFrame {
        function: symbol.name().map_or_else(frame_function_name, demangle_name),
        file: symbol
            .file()
            .map(|file| truncate_to_single_line(file, MAX_NAME_CHARS)),
        line: symbol.line().filter(|line| *line > 0),
    });
    let mut functions: Vec<BacktraceFrame> = symbols.collect();
    match functions.last_mut() {
        // The debug information names a function without its module, so the outermost function takes its name from the frame.
        Some(outermost) => outermost.function = frame_function_name(),
        None => functions.push(BacktraceFrame {
            function: frame_function_name(),
            file: None,
            line: None,
        }),
    }
    functions
}

fn demangle_name(symbol: &str) -> String {
    shorten_name(&format!("{:#}", rustc_demangle::demangle(symbol)))
}

fn format_frame(frame: &BacktraceFrame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} at {file}:{line}", frame.function),
        _ => frame.function.clone(),
    }
}

/// Returns the end of a guest's message on one line. The end matters because a traceback names the exception last.
fn tail_of_message(message: &str) -> String {
    let line = message.lines().map(str::trim).collect::<Vec<_>>().join(" | ");
    let cut = line.chars().count().saturating_sub(MAX_MESSAGE_CHARS);
    truncate_to_single_line(&line.chars().skip(cut).collect::<String>(), MAX_MESSAGE_CHARS)
}

/// Replaces control characters with spaces, except line breaks.
fn replace_control_characters(message: &str) -> String {
    let replace_control = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    message.chars().map(replace_control).collect()
}

/// Shortens a name. The name of a generic function contains all of its types and can be very long.
fn shorten_name(name: &str) -> String {
    let short = truncate_to_single_line(name, MAX_NAME_CHARS);
    if short.len() < name.len() {
        short + "…"
    } else {
        short
    }
}

/// Whether a frame belongs to Rust's runtime or standard library, which lie between a panic and its cause.
fn is_language_runtime_frame(frame: &BacktraceFrame) -> bool {
    const RUNTIME_PREFIXES: &[&str] = &[
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
    let is_in_standard_library =
        |file: &String| file.contains("/library/std/") || file.contains("/library/core/");
    frame.file.as_ref().is_some_and(is_in_standard_library)
        || RUNTIME_PREFIXES
            .iter()
            .any(|prefix| frame.function.starts_with(prefix))
}

fn is_runaway_recursion(frames: &[BacktraceFrame]) -> bool {
    let mut occurrences: HashMap<&str, usize> = HashMap::new();
    for frame in frames {
        *occurrences.entry(&frame.function).or_default() += 1;
    }
    frames.len() >= MIN_RECURSION_FRAMES && occurrences.values().any(|&n| n * 2 >= frames.len())
}

/// Whether the error is wasmtime's error for too many bytes passed to the host.
///
/// Neither this error nor the one for handles has its own type in wasmtime, so the message is matched. Tests with hostile
/// components fail if wasmtime changes the messages.
fn is_output_limit_error(error: &Error) -> bool {
    error
        .root_cause()
        .to_string()
        .contains("fuel allocated for hostcalls")
}

/// Whether the error is wasmtime's error for too many handles.
fn is_handle_limit_error(error: &Error) -> bool {
    error
        .root_cause()
        .to_string()
        .contains("store handle limit exceeded")
}
