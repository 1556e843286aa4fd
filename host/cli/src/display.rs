//! Shows the progress of ingestion: progress bars on a terminal, plain lines otherwise, or events as JSON lines with `--json`.

mod progress_bars;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_core::decision::QueueState;
use weir_core::event::{Event, EventKind};
use weir_core::id::DocumentId;

use crate::terminal::{error_line, is_stderr_interactive, print, replace_control_characters};
use progress_bars::ProgressBars;
use weir_core::clock::unix_time_millis;

/// Shows events in one of three formats.
pub(crate) enum ProgressDisplay {
    /// One JSON object per line on standard output.
    Json,
    /// Progress bars on standard error.
    Bars(Box<ProgressBars>),
    /// Plain lines on standard error.
    Lines(PlainLines),
}

impl ProgressDisplay {
    /// Selects the format: JSON if requested, else bars on a terminal, else plain lines.
    pub(crate) fn new(json: bool) -> Self {
        if json {
            Self::Json
        } else if is_stderr_interactive() {
            Self::Bars(Box::default())
        } else {
            Self::Lines(PlainLines::default())
        }
    }

    /// Shows an event. Errors of the output, such as a closed pipe, are ignored so that the work continues.
    pub(crate) fn show_event(&mut self, event: &Event) {
        match self {
            Self::Json => {
                if let Ok(line) = serde_json::to_string(event) {
                    let _ = print(format_args!("{line}\n"));
                }
            }
            Self::Bars(bars) => bars.show_event(event),
            Self::Lines(lines) => lines.show_event(event),
        }
    }

    /// Prints a note that belongs to no event. Does nothing with JSON.
    pub(crate) fn print_note(&self, line: &str) {
        match self {
            Self::Json => {}
            Self::Bars(bars) => bars.print_line(line),
            Self::Lines(_) => print_line_to_stderr(line),
        }
    }

    /// Prints an error that belongs to no document to standard error, in every format.
    pub(crate) fn print_error(&self, line: &str) {
        match self {
            Self::Bars(bars) => bars.print_line(line),
            Self::Json | Self::Lines(_) => print_line_to_stderr(line),
        }
    }

    /// Removes the bars from the terminal.
    pub(crate) fn clear_bars(&mut self) {
        if let Self::Bars(bars) = self {
            bars.clear_queue_line();
        }
    }
}

fn print_line_to_stderr(line: &str) {
    error_line!("{}", replace_control_characters(line));
}

/// Formats a duration in the unit that fits its size.
fn format_duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Whether an event is the last of its document.
const fn is_document_end(event: &EventKind) -> bool {
    matches!(
        event,
        EventKind::DocumentDone { .. }
            | EventKind::DocumentFailed { .. }
            | EventKind::DocumentCancelled { .. }
    )
}

/// Returns the line for an event that has one: the end of a document, errors, retries, summaries and waits. `took` is the time
/// since the document started.
fn describe_event(name: &str, event: &EventKind, took: Duration) -> Option<String> {
    let seconds = took.as_secs_f64();
    Some(match event {
        EventKind::PageFailed { page, stage, error } => {
            format!("{name}: page {page} failed in {stage}: {}", error.message)
        }
        EventKind::PageRetried {
            page,
            stage,
            attempt,
            error,
        } => {
            format!(
                "{name}: page {page} failed in {stage} (attempt {attempt}), retrying: {}",
                error.message
            )
        }
        EventKind::SectionSummarized {
            section,
            title,
            summary,
            ..
        } => {
            let title = title.as_deref().unwrap_or("untitled");
            match summary {
                Some(_) => format!("{name}: section {section} ({title}) summarized"),
                None => format!("{name}: section {section} ({title}) is too short for a summary"),
            }
        }
        EventKind::SectionFailed { section, error, .. } => {
            format!("{name}: cannot summarize section {section}: {}", error.message)
        }
        EventKind::JobPausedByQuota { error } => format!("{name}: paused by a quota: {}", error.message),
        EventKind::ModelWaitStarted { providers } => {
            let now = unix_time_millis();
            let each: Vec<_> = providers
                .iter()
                .map(|provider| provider.describe_failure(now))
                .collect();
            format!("{name}: waiting for language models: {}", each.join("; "))
        }
        EventKind::ModelWaitEnded {} => format!("{name}: no longer waiting for language models"),
        EventKind::DocumentSummarized { sections, .. } => {
            format!("{name}: {sections} sections summarized")
        }
        EventKind::PolicyFallback { error } => {
            format!(
                "{name}: a component failed, the default component is used: {}",
                error.message
            )
        }
        EventKind::DocumentDone {
            pages,
            searchable,
            skipped,
            failed,
            ..
        } if skipped == pages => {
            debug_assert!(failed.is_empty() && *searchable <= *pages);
            format!("{name}: all {pages} pages were already done")
        }
        EventKind::DocumentDone {
            pages,
            searchable,
            skipped,
            failed,
            ..
        } => {
            let mut line = format!("{name}: {searchable} of {pages} pages searchable after {seconds:.1} s");
            let worked = pages.saturating_sub(*skipped);
            if seconds > 0.0 {
                line += &format!(", {:.1} pages/s", f64::from(worked) / seconds);
            }
            if *skipped > 0 {
                line += &format!(", {skipped} were already done");
            }
            if !failed.is_empty() {
                let numbers: Vec<_> = failed.iter().take(10).map(|f| f.page.to_string()).collect();
                let more = if failed.len() > 10 { ", …" } else { "" };
                line += &format!(", {} failed: page {}{more}", failed.len(), numbers.join(", "));
            }
            line
        }
        EventKind::DocumentFailed { error, done, .. } => {
            let kept = if *done > 0 {
                format!(" ({done} finished pages are kept)")
            } else {
                String::new()
            };
            format!("{name}: failed: {}{kept}", error.message)
        }
        EventKind::DocumentCancelled { done, .. } => {
            format!("{name}: stopped, {done} pages done; run the command again to continue from there")
        }
        _ => return None,
    })
}

/// Returns the document name in an event, if the event has one.
fn event_document_name(event: &EventKind) -> Option<&str> {
    match event {
        EventKind::DocumentStarted { name, .. }
        | EventKind::DocumentDone { name, .. }
        | EventKind::DocumentFailed { name, .. }
        | EventKind::DocumentCancelled { name, .. } => Some(name),
        _ => None,
    }
}

fn format_queue_depths(queues: &[QueueState]) -> String {
    let each: Vec<_> = queues
        .iter()
        .map(|q| format!("{} {}/{}", q.stage, q.depth, q.capacity))
        .collect();
    format!("queued: {}", each.join(" · "))
}

struct DocumentProgress {
    name: String,
    started: Instant,
    queue_depths: String,
    /// Time of the last progress line.
    last_progress_line: Option<Instant>,
    /// Whether the last event was a failed page. The next progress update repeats that failure.
    last_event_was_page_failure: bool,
}

impl DocumentProgress {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            queue_depths: String::new(),
            last_progress_line: None,
            last_event_was_page_failure: false,
        }
    }
}

/// Minimum time between two progress lines of a document.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Progress as plain lines, for logs and pipes.
#[derive(Default)]
pub(crate) struct PlainLines {
    documents: HashMap<Option<DocumentId>, DocumentProgress>,
}

impl PlainLines {
    fn show_event(&mut self, event: &Event) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::event::{ErrorInfo, FailedPage};

    #[test]
    fn duration_is_formatted_in_a_fitting_unit() {
        assert_eq!(format_duration(119), "119 s");
        assert_eq!(format_duration(121), "3 min");
        assert_eq!(format_duration(3 * 3600 + 61), "3 h 1 min");
    }

    #[test]
    fn summary_line_lists_failed_pages() {
        let error = ErrorInfo {
            kind: "page-unreadable".into(),
            message: "page 3 cannot be read".into(),
        };
        let end = EventKind::DocumentDone {
            name: "a.pdf".into(),
            pages: 10,
            searchable: 9,
            skipped: 0,
            failed: vec![FailedPage { page: 3, error }],
        };
        let line = describe_event("a.pdf", &end, Duration::from_secs(2)).unwrap();
        assert_eq!(
            line,
            "a.pdf: 9 of 10 pages searchable after 2.0 s, 5.0 pages/s, 1 failed: page 3"
        );
    }
}
