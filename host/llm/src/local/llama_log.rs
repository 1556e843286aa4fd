//! Captures the error messages of llama.cpp, whose functions return only failure and write the reason to the log.
//!
//! The log of one thread is captured while a closure runs. Other messages are discarded, because loading a model writes a
//! hundred lines.

use std::fmt::Debug;
use std::sync::Arc;

use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Maximum number of messages.
const MAX_ERRORS: usize = 8;

/// Runs a closure and returns its result with llama.cpp's error messages, joined to one line.
pub(super) fn capture_llama_errors<T>(run: impl FnOnce() -> T) -> (T, String) {
    send_logs_to_tracing(LogOptions::default());
    let errors = Arc::new(Mutex::new(Vec::new()));
    let collector = ErrorCollector(Arc::clone(&errors));
    let done = tracing::subscriber::with_default(collector, run);
    let errors = errors.lock().join("; ");
    (done, errors)
}

/// A tracing subscriber that collects error messages.
struct ErrorCollector(Arc<Mutex<Vec<String>>>);

impl Subscriber for ErrorCollector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut errors = self.0.lock();
        if errors.len() < MAX_ERRORS {
            event.record(&mut MessageVisitor(&mut errors));
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct MessageVisitor<'a>(&'a mut Vec<String>);

impl Visit for MessageVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" && !value.trim().is_empty() {
            self.0.push(value.trim().to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
