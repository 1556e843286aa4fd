//! Progress as plain lines on standard error, for logs and pipes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_core::event::{Event, EventKind};
use weir_core::id::DocumentId;

use super::document_state_and_event_texts::{
    DocumentProgress, describe_event, event_document_name, format_duration, format_queue_depths,
};
use crate::terminal::{error_line, replace_control_characters};

/// Minimum time between two progress lines of a document.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Progress as plain lines, for logs and pipes.
#[derive(Default)]
pub(crate) struct PlainLines {
    documents: HashMap<Option<DocumentId>, DocumentProgress>,
}

impl PlainLines {
    pub(super) fn show_event(&mut self, event: &Event) {
        let name = event_document_name(&event.kind).unwrap_or_default();
        let document = self
            .documents
            .entry(event.document)
            .or_insert_with(|| DocumentProgress::new(name));
        let name = if name.is_empty() {
            document.name.as_str()
        } else {
            name
        };
        match &event.kind {
            EventKind::DocumentStarted {
                pages, already_done, ..
            } if *already_done > 0 => {
                print_line_to_stderr(&format!("{name}: {pages} pages, {already_done} already done"));
            }
            EventKind::DocumentStarted { pages, .. } => {
                print_line_to_stderr(&format!("{name}: {pages} pages"))
            }
            EventKind::BatchRasterized { queues, .. } => document.queue_depths = format_queue_depths(queues),
            EventKind::Progress {
                percent,
                message,
                seconds_left,
            } => {
                // A page failure and the end of a document each have their own line.
                let repeats = std::mem::take(&mut document.last_event_was_page_failure) || *percent >= 100.0;
                if !repeats
                    && document
                        .last_progress_line
                        .is_none_or(|at| at.elapsed() >= MIN_LINE_INTERVAL)
                {
                    document.last_progress_line = Some(Instant::now());
                    let left = seconds_left.map(|s| format!(", {} left", format_duration(u64::from(s))));
                    let left = left.unwrap_or_default();
                    let queues = &document.queue_depths;
                    let waiting = if queues.is_empty() {
                        String::new()
                    } else {
                        format!(" ({queues})")
                    };
                    print_line_to_stderr(&format!("{name}: {percent:.0} %: {message}{left}{waiting}"));
                }
            }
            other => {
                document.last_event_was_page_failure = matches!(other, EventKind::PageFailed { .. });
                if let Some(line) = describe_event(name, other, document.started.elapsed()) {
                    print_line_to_stderr(&line);
                }
            }
        }
    }
}

pub(super) fn print_line_to_stderr(line: &str) {
    error_line!("{}", replace_control_characters(line));
}
