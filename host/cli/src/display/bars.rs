//! Progress bars on a terminal: one line for each document, and the depth of each queue below them.

use std::collections::HashMap;
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use weir_core::event::{Event, EventKind};
use weir_core::id::DocumentId;

use super::{Document, depths, duration, is_end, name_in, sentence};
use crate::terminal::one_line;

/// The bars of a run.
pub(crate) struct Bars {
    all: MultiProgress,
    queues: ProgressBar,
    terminal: Term,
    /// The layout of the bars, by the terminal's width.
    layout: &'static str,
    documents: HashMap<Option<DocumentId>, Bar>,
}

/// A document in work.
struct Bar {
    document: Document,
    bar: ProgressBar,
    pages: u32,
    /// Pages that have ended.
    ended: u32,
    /// Whether the progress component has said something. Until then the pages are counted here.
    reported: bool,
}

/// The bar has a fixed width: the message takes the rest of the line and is cut there, so that it never pushes the bar.
fn layout(columns: u16) -> &'static str {
    match columns {
        80.. => "{prefix:20!} {bar:24} {wide_msg}",
        50.. => "{prefix:14!} {bar:10} {wide_msg}",
        _ => "{prefix:10!} {wide_msg}",
    }
}

fn style(layout: &str) -> ProgressStyle {
    ProgressStyle::with_template(layout).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Default for Bars {
    fn default() -> Self {
        let all = MultiProgress::new();
        let queues = all.add(ProgressBar::new_spinner());
        queues.set_style(style("{spinner} {wide_msg}"));
        queues.enable_steady_tick(Duration::from_millis(100));
        let terminal = Term::stderr();
        Self {
            all,
            queues,
            layout: layout(terminal.size().1),
            terminal,
            documents: HashMap::new(),
        }
    }
}

impl Bars {
    /// Shows a line above the bars.
    pub(super) fn say(&self, line: &str) {
        let _ = self.all.println(one_line(line));
    }

    /// Removes what still moves.
    pub(super) fn finish(&mut self) {
        self.queues.finish_and_clear();
    }

    /// Shows an event.
    pub(super) fn show(&mut self, event: &Event) {
        self.follow_width();
        if let EventKind::DocumentStarted {
            name,
            pages,
            already_done,
        } = &event.what
        {
            let bar = ProgressBar::new(u64::from(*pages));
            let bar = self.all.insert_before(&self.queues, bar);
            bar.set_style(style(self.layout));
            bar.set_prefix(one_line(name));
            let mut bar = Bar {
                document: Document::new(name),
                bar,
                pages: *pages,
                ended: 0,
                reported: false,
            };
            bar.advance(*already_done);
            self.documents.insert(event.document, bar);
            return;
        }
        if let EventKind::BatchRasterized { queues, .. } = &event.what {
            self.queues.set_message(depths(queues));
        }
        let Some(bar) = self.documents.get_mut(&event.document) else {
            if let Some(line) = sentence(name_in(&event.what).unwrap_or(""), &event.what, Duration::ZERO) {
                self.say(&line);
            }
            return;
        };
        match &event.what {
            EventKind::PageDone { .. } | EventKind::PageFailed { .. } => bar.advance(1),
            EventKind::Progress {
                message,
                seconds_left,
                ..
            } => {
                let left = seconds_left.filter(|seconds| *seconds > 0);
                let left = left.map(|seconds| format!("{} left  ", duration(u64::from(seconds))));
                bar.reported = true;
                bar.bar.set_message(left.unwrap_or_default() + &one_line(message));
            }
            _ => {}
        }
        let line = sentence(&bar.document.name, &event.what, bar.document.started.elapsed());
        if is_end(&event.what) {
            bar.bar.finish_and_clear();
            self.documents.remove(&event.document);
        }
        if let Some(line) = line {
            self.say(&line);
        }
    }

    /// Lays the bars out anew if the terminal has become much wider or narrower.
    fn follow_width(&mut self) {
        let layout = layout(self.terminal.size().1);
        if self.layout != layout {
            self.layout = layout;
            for document in self.documents.values() {
                document.bar.set_style(style(layout));
            }
        }
    }
}

impl Bar {
    fn advance(&mut self, pages: u32) {
        self.ended = self.ended.saturating_add(pages).min(self.pages);
        self.bar.set_position(u64::from(self.ended));
        if !self.reported {
            self.bar
                .set_message(format!("{} of {} pages", self.ended, self.pages));
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

    /// A terminal that keeps the line that was drawn last.
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

    /// The line of a bar with this message on a terminal of this width.
    fn line(columns: u16, message: &str) -> String {
        let screen = Screen {
            columns,
            line: Arc::default(),
        };
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = ProgressBar::with_draw_target(Some(40), target);
        bar.set_style(style(layout(columns)));
        bar.set_prefix("handbook.pdf");
        bar.set_position(10);
        bar.set_message(message.to_owned());
        screen.line.lock().clear();
        bar.force_draw();
        let line = screen.line.lock().clone();
        line.trim_end().to_owned()
    }

    #[test]
    fn bar_keeps_its_width_when_its_text_grows() {
        let long = "12 of 40 pages searchable, 1.0 pages/s, reading is the bottleneck ".repeat(4);
        for columns in [40, 60, 80, 120, 200] {
            let filled = |line: &str| line.matches(['█', '░']).count();
            let (short, long) = (line(columns, "1 of 40"), line(columns, &long));
            assert_eq!(filled(&short), filled(&long), "{columns}: {long}");
            assert!(long.chars().count() <= usize::from(columns), "{columns}: {long}");
            assert!(short.contains("1 of 40"), "{columns}: {short}");
        }
    }
}
