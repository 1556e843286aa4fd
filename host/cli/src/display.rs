//! Shows the progress of ingestion: progress bars on a terminal, plain lines otherwise, or events as JSON lines with `--json`.

mod document_state_and_event_texts;
mod plain_lines;
mod progress_bars;

use weir_core::event::Event;

use crate::terminal::{is_stderr_interactive, print_to_stdout};
use plain_lines::{PlainLines, print_line_to_stderr};
use progress_bars::ProgressBars;

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
                    let _ = print_to_stdout(format_args!("{line}\n"));
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
