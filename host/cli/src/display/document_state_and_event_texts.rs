//! The progress of a document, and the texts for its events.

use std::time::{Duration, Instant};

use weir_core::clock::unix_time_millis;
use weir_core::decision::QueueState;
use weir_core::event::EventKind;

/// Formats a duration in the unit that fits its size.
pub(super) fn format_duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Whether an event is the last of its document.
pub(super) const fn is_document_end(event: &EventKind) -> bool {
    matches!(
        event,
        EventKind::DocumentDone { .. }
            | EventKind::DocumentFailed { .. }
            | EventKind::DocumentCancelled { .. }
    )
}

/// Returns the line for an event that has one: the end of a document, errors, retries, summaries and waits. `elapsed` is the time
/// since the document started.
pub(super) fn describe_event(name: &str, event: &EventKind, elapsed: Duration) -> Option<String> {
    let seconds = elapsed.as_secs_f64();
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
            let title = title
                .as_deref()
                .map_or_else(String::new, |title| format!(", \"{title}\","));
            match summary {
                Some(_) => format!("{name}: section {section}{title} summarized"),
                None => format!("{name}: section {section}{title} is too short for a summary"),
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
            let processed_pages = pages.saturating_sub(*skipped);
            if seconds > 0.0 {
                line += &format!(", {:.1} pages/s", f64::from(processed_pages) / seconds);
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
pub(super) fn event_document_name(event: &EventKind) -> Option<&str> {
    match event {
        EventKind::DocumentStarted { name, .. }
        | EventKind::DocumentDone { name, .. }
        | EventKind::DocumentFailed { name, .. }
        | EventKind::DocumentCancelled { name, .. } => Some(name),
        _ => None,
    }
}

pub(super) fn format_queue_depths(queues: &[QueueState]) -> String {
    let each: Vec<_> = queues
        .iter()
        .map(|q| format!("{} {}/{}", q.stage, q.depth, q.capacity))
        .collect();
    format!("queued: {}", each.join(" · "))
}

/// The displayed state of an active document.
pub(super) struct DocumentProgress {
    pub(super) name: String,
    pub(super) started: Instant,
    pub(super) queue_depths: String,
    /// Time of the last progress line.
    pub(super) last_progress_line: Option<Instant>,
    /// Whether the last event was a failed page. The next progress update repeats that failure.
    pub(super) last_event_was_page_failure: bool,
}

impl DocumentProgress {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            queue_depths: String::new(),
            last_progress_line: None,
            last_event_was_page_failure: false,
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
    fn document_done_line_lists_failed_pages() {
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
