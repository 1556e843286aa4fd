//! Progress bars on a terminal: one line per document, and the queue depths below them.

use std::collections::HashMap;
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use weir_core::event::{Event, EventKind};
use weir_core::id::DocumentId;

use super::document_state_and_event_texts::{
    DocumentProgress, describe_event, event_document_name, format_duration, format_queue_depths,
    is_document_end,
};
use crate::terminal::replace_control_characters;

/// The progress bars of a run.
pub(crate) struct ProgressBars {
    multi_progress: MultiProgress,
    queue_line: ProgressBar,
    terminal: Term,
    /// Template of the bars for the current terminal width.
    template: &'static str,
    documents: HashMap<Option<DocumentId>, DocumentBar>,
}

/// The progress bar of an active document.
struct DocumentBar {
    progress: DocumentProgress,
    bar: ProgressBar,
    pages: u32,
    /// Number of pages that are done or failed.
    finished_pages: u32,
    /// Whether the progress component has sent a message. Until then, the bar shows a count of pages.
    has_progress_message: bool,
}

/// Returns the template for a terminal width. The bar has a fixed width and the message is cut to the rest of the line, so
/// that the bar does not move when the message changes.
fn select_template_for_width(columns: u16) -> &'static str {
    match columns {
        80.. => "{prefix:20!} {bar:24} {wide_msg}",
        50.. => "{prefix:14!} {bar:10} {wide_msg}",
        _ => "{prefix:10!} {wide_msg}",
    }
}

fn build_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Default for ProgressBars {
    fn default() -> Self {
        let multi_progress = MultiProgress::new();
        let queue_line = multi_progress.add(ProgressBar::new_spinner());
        queue_line.set_style(build_style("{spinner} {wide_msg}"));
        queue_line.enable_steady_tick(Duration::from_millis(100));
        let terminal = Term::stderr();
        Self {
            multi_progress,
            queue_line,
            template: select_template_for_width(terminal.size().1),
            terminal,
            documents: HashMap::new(),
        }
    }
}

impl ProgressBars {
    /// Prints a line above the bars.
    pub(super) fn print_line(&self, line: &str) {
        let _ = self.multi_progress.println(replace_control_characters(line));
    }

    /// Removes the line of queue depths.
    pub(super) fn clear_queue_line(&mut self) {
        self.queue_line.finish_and_clear();
    }

    /// Updates the bars with an event.
    pub(super) fn show_event(&mut self, event: &Event) {
        self.update_template_to_width();
        if let EventKind::DocumentStarted {
            name,
            pages,
            already_done,
        } = &event.kind
        {
            let bar = ProgressBar::new(u64::from(*pages));
            let bar = self.multi_progress.insert_before(&self.queue_line, bar);
            bar.set_style(build_style(self.template));
            bar.set_prefix(replace_control_characters(name));
            let mut bar = DocumentBar {
                progress: DocumentProgress::new(name),
                bar,
                pages: *pages,
                finished_pages: 0,
                has_progress_message: false,
            };
            bar.add_finished_pages(*already_done);
            self.documents.insert(event.document, bar);
            return;
        }
        if let EventKind::BatchRasterized { queues, .. } = &event.kind {
            self.queue_line.set_message(format_queue_depths(queues));
        }
        let Some(bar) = self.documents.get_mut(&event.document) else {
            if let Some(line) = describe_event(
                event_document_name(&event.kind).unwrap_or(""),
                &event.kind,
                Duration::ZERO,
            ) {
                self.print_line(&line);
            }
            return;
        };
        match &event.kind {
            EventKind::PageDone { .. } | EventKind::PageFailed { .. } => bar.add_finished_pages(1),
            EventKind::Progress {
                message,
                seconds_left,
                ..
            } => {
                let left = seconds_left.filter(|seconds| *seconds > 0);
                let left = left.map(|seconds| format!("{} left  ", format_duration(u64::from(seconds))));
                bar.has_progress_message = true;
                bar.bar
                    .set_message(left.unwrap_or_default() + &replace_control_characters(message));
            }
            _ => {}
        }
        let line = describe_event(&bar.progress.name, &event.kind, bar.progress.started.elapsed());
        if is_document_end(&event.kind) {
            bar.bar.finish_and_clear();
            self.documents.remove(&event.document);
        }
        if let Some(line) = line {
            self.print_line(&line);
        }
    }

    /// Changes the template of the bars if the terminal has become much wider or narrower.
    fn update_template_to_width(&mut self) {
        let template = select_template_for_width(self.terminal.size().1);
        if self.template != template {
            self.template = template;
            for document in self.documents.values() {
                document.bar.set_style(build_style(template));
            }
        }
    }
}

impl DocumentBar {
    fn add_finished_pages(&mut self, pages: u32) {
        self.finished_pages = self.finished_pages.saturating_add(pages).min(self.pages);
        self.bar.set_position(u64::from(self.finished_pages));
        if !self.has_progress_message {
            self.bar
                .set_message(format!("{} of {} pages", self.finished_pages, self.pages));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use indicatif::{ProgressDrawTarget, TermLike};
    use parking_lot::Mutex;

    use super::*;

    /// A terminal that stores the line that was drawn last.
    #[derive(Debug, Clone)]
    struct Screen {
        columns: u16,
        line: Arc<Mutex<String>>,
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            self.columns
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.line.lock().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.line.lock().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Draws a bar with this message on a terminal of this width and returns the line.
    fn draw_bar_line(columns: u16, message: &str) -> String {
        let screen = Screen {
            columns,
            line: Arc::default(),
        };
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = ProgressBar::with_draw_target(Some(40), target);
        bar.set_style(build_style(select_template_for_width(columns)));
        bar.set_prefix("handbook.pdf");
        bar.set_position(10);
        bar.set_message(message.to_owned());
        screen.line.lock().clear();
        bar.force_draw();
        let line = screen.line.lock().clone();
        line.trim_end().to_owned()
    }

    #[test]
    fn bar_width_does_not_depend_on_the_message() {
        let long = "12 of 40 pages searchable, 1.0 pages/s, reading is the bottleneck ".repeat(4);
        for columns in [40, 60, 80, 120, 200] {
            let filled = |line: &str| line.matches(['█', '░']).count();
            let (short, long) = (draw_bar_line(columns, "1 of 40"), draw_bar_line(columns, &long));
            assert_eq!(filled(&short), filled(&long), "{columns}: {long}");
            assert!(long.chars().count() <= usize::from(columns), "{columns}: {long}");
            assert!(short.contains("1 of 40"), "{columns}: {short}");
        }
    }
}
