//! What llama.cpp says while it reads a file: its functions answer with nothing but failure, and tell the log why.
//!
//! The log of one thread is listened to for as long as a closure runs. Nothing else is done with it: what a model says of itself while
//! it loads is a hundred lines.

use std::fmt::Debug;
use std::sync::Arc;

use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Complaints that are kept.
const MOST: usize = 8;

/// Runs something, and returns what llama.cpp complained of meanwhile, in one line.
pub(super) fn heard<T>(run: impl FnOnce() -> T) -> (T, String) {
    send_logs_to_tracing(LogOptions::default());
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let ear = Ear(Arc::clone(&complaints));
    let done = tracing::subscriber::with_default(ear, run);
    let complaints = complaints.lock().join("; ");
    (done, complaints)
}

/// Listens to errors.
struct Ear(Arc<Mutex<Vec<String>>>);

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut complaints = self.0.lock();
        if complaints.len() < MOST {
            event.record(&mut Message(&mut complaints));
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message<'a>(&'a mut Vec<String>);

impl Visit for Message<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" && !value.trim().is_empty() {
            self.0.push(value.trim().to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
