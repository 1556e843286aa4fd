//! What a person sees while documents are ingested: a bar for each on a terminal, plain lines elsewhere, events as JSON
//! lines for programs.

mod bars;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_core::decision::QueueState;
use weir_core::event::{Event, EventKind};
use weir_core::id::DocumentId;

use crate::tenants::now_millis;
use crate::terminal::{error_line, is_interactive, one_line, print};
use bars::Bars;

/// How events are shown.
pub(crate) enum Display {
    /// One JSON object a line on standard output.
    Json,
    /// Bars on standard error.
    Bars(Box<Bars>),
    /// Lines on standard error.
    Lines(Lines),
}

impl Display {
    /// The kind that fits where the output goes.
    pub(crate) fn new(json: bool) -> Self {
        if json {
            Self::Json
        } else if is_interactive() {
            Self::Bars(Box::default())
        } else {
            Self::Lines(Lines::default())
        }
    }

    /// Shows an event. An output that is gone (a closed pipe) is no reason to stop the work.
    pub(crate) fn show(&mut self, event: &Event) {
        match self {
            Self::Json => {
                if let Ok(line) = serde_json::to_string(event) {
                    let _ = print(format_args!("{line}\n"));
                }
            }
            Self::Bars(bars) => bars.show(event),
            Self::Lines(lines) => lines.show(event),
        }
    }

    /// A line that belongs to no event.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Self::Json => {}
            Self::Bars(bars) => bars.say(line),
            Self::Lines(_) => write_line(line),
        }
    }

    /// An error that belongs to no document; said on standard error whatever the output is.
    pub(crate) fn complain(&self, line: &str) {
        match self {
            Self::Bars(bars) => bars.say(line),
            Self::Json | Self::Lines(_) => write_line(line),
        }
    }

    /// Leaves the terminal as it was found.
    pub(crate) fn finish(&mut self) {
        if let Self::Bars(bars) = self {
            bars.finish();
        }
    }
}

fn write_line(line: &str) {
    error_line!("{}", one_line(line));
}

/// A duration as a person would name it.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Whether an event is the last of its document.
const fn is_end(event: &EventKind) -> bool {
    matches!(
        event,
        EventKind::DocumentDone { .. }
            | EventKind::DocumentFailed { .. }
            | EventKind::DocumentCancelled { .. }
    )
}

/// The last line of a document, if the event is its end; and the lines of errors and retries.
fn sentence(name: &str, event: &EventKind, took: Duration) -> Option<String> {
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
                "{name}: page {page} failed in {stage} (attempt {attempt}), trying again: {}",
                error.message
            )
        }
        EventKind::SectionSummarized {
            section,
            title,
            summary,
            ..
        } => {
            let title = title.as_deref().unwrap_or("without a title");
            match summary {
                Some(_) => format!("{name}: section {section} ({title}) is summarized"),
                None => format!("{name}: section {section} ({title}) is too short for a summary"),
            }
        }
        EventKind::SectionFailed { section, error, .. } => {
            format!(
                "{name}: section {section} could not be summarized: {}",
                error.message
            )
        }
        EventKind::JobHeld { error } => format!("{name}: held: {}", error.message),
        EventKind::ModelWaitStarted { providers } => {
            let now = now_millis();
            let each: Vec<_> = providers.iter().map(|provider| provider.describe(now)).collect();
            format!("{name}: waiting for language models: {}", each.join("; "))
        }
        EventKind::ModelWaitEnded {} => format!("{name}: no longer waiting for language models"),
        EventKind::DocumentSummarized { sections, .. } => {
            format!("{name}: {sections} sections are summarized")
        }
        EventKind::PolicyFailed { error } => {
            format!("{name}: the default decides instead: {}", error.message)
        }
        EventKind::DocumentDone {
            pages,
            searchable,
            skipped,
            failed,
            ..
        } if skipped == pages => {
            debug_assert!(failed.is_empty() && *searchable <= *pages);
            format!("{name}: all {pages} pages were done before")
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
                line += &format!(", {skipped} were done before");
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
                format!(" ({done} pages done before it are kept)")
            } else {
                String::new()
            };
            format!("{name}: failed: {}{kept}", error.message)
        }
        EventKind::DocumentCancelled { done, .. } => {
            format!("{name}: stopped, {done} pages done; run again to go on from there")
        }
        _ => return None,
    })
}

/// The name an event gives its document, if it gives one.
fn name_in(event: &EventKind) -> Option<&str> {
    match event {
        EventKind::DocumentStarted { name, .. }
        | EventKind::DocumentDone { name, .. }
        | EventKind::DocumentFailed { name, .. }
        | EventKind::DocumentCancelled { name, .. } => Some(name),
        _ => None,
    }
}

fn depths(queues: &[QueueState]) -> String {
    let each: Vec<_> = queues
        .iter()
        .map(|q| format!("{} {}/{}", q.stage, q.depth, q.capacity))
        .collect();
    format!("waiting: {}", each.join(" · "))
}

struct Document {
    name: String,
    started: Instant,
    queues: String,
    /// When its progress was last said in a line.
    said: Option<Instant>,
    /// Whether its last event was a failed page, which the next update of its progress repeats.
    failed: bool,
}

impl Document {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            queues: String::new(),
            said: None,
            failed: false,
        }
    }
}

/// Progress lines of a document come at least this far apart.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Plain lines, for logs and pipes.
#[derive(Default)]
pub(crate) struct Lines {
    documents: HashMap<Option<DocumentId>, Document>,
}

impl Lines {
    fn show(&mut self, event: &Event) {
        let name = name_in(&event.what).unwrap_or_default();
        let document = self
            .documents
            .entry(event.document)
            .or_insert_with(|| Document::new(name));
        let name = if name.is_empty() {
            document.name.as_str()
        } else {
            name
        };
        match &event.what {
            EventKind::DocumentStarted {
                pages, already_done, ..
            } if *already_done > 0 => {
                write_line(&format!(
                    "{name}: {pages} pages, {already_done} of them done before"
                ));
            }
            EventKind::DocumentStarted { pages, .. } => write_line(&format!("{name}: {pages} pages")),
            EventKind::BatchRasterized { queues, .. } => document.queues = depths(queues),
            EventKind::Progress {
                percent,
                message,
                seconds_left,
            } => {
                // The failure has a line of its own, and so has the end.
                let repeats = std::mem::take(&mut document.failed) || *percent >= 100.0;
                if !repeats && document.said.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    document.said = Some(Instant::now());
                    let left = seconds_left.map(|s| format!(", {} left", duration(u64::from(s))));
                    let left = left.unwrap_or_default();
                    let queues = &document.queues;
                    let waiting = if queues.is_empty() {
                        String::new()
                    } else {
                        format!(" ({queues})")
                    };
                    write_line(&format!("{name}: {percent:.0} %: {message}{left}{waiting}"));
                }
            }
            other => {
                document.failed = matches!(other, EventKind::PageFailed { .. });
                if let Some(line) = sentence(name, other, document.started.elapsed()) {
                    write_line(&line);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::event::{ErrorNote, FailedPage};

    #[test]
    fn duration_is_in_units_of_its_size() {
        assert_eq!(duration(119), "119 s");
        assert_eq!(duration(121), "3 min");
        assert_eq!(duration(3 * 3600 + 61), "3 h 1 min");
    }

    #[test]
    fn a_document_that_lost_a_page_says_which() {
        let error = ErrorNote {
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
        let line = sentence("a.pdf", &end, Duration::from_secs(2)).unwrap();
        assert_eq!(
            line,
            "a.pdf: 9 of 10 pages searchable after 2.0 s, 5.0 pages/s, 1 failed: page 3"
        );
    }
}
