//! Standard output and standard error.
//!
//! A reader may close its end of a pipe at any time (`weir settings | head`). That is no failure of the command: what it still
//! prints is dropped, and it ends with the exit code of its work. `println!` would panic instead, so nothing else in this crate
//! prints, which the lints `print_stdout` and `print_stderr` check.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// Whether the reader of standard output has closed its end.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output. Fails if it cannot be written, except for a closed pipe.
macro_rules! out_line {
    ($($text:tt)*) => { $crate::terminal::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a line to standard error, if anyone reads it.
macro_rules! error_line {
    ($($text:tt)*) => { $crate::terminal::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {error_line, out_line};

/// Writes to standard output.
pub(crate) fn print(text: fmt::Arguments<'_>) -> io::Result<()> {
    if is_closed() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => written,
    }
}

/// Whether standard output has no reader any more, so that a long listing can stop.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Writes to standard error. There is nowhere to report a failure to.
pub(crate) fn print_error(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Whether standard error is a terminal that can redraw a line.
pub(crate) fn is_interactive() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Makes a text of a document or a component safe to show: one line, and no control characters that would move the cursor.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Work that is done within this time is not announced.
const UNANNOUNCED: Duration = Duration::from_secs(1);
/// How often a log or a pipe is told that the work goes on.
const REMINDER: Duration = Duration::from_secs(10);

/// Awaits work that may take long, and says so on standard error meanwhile: with a spinner and the time on a terminal, in a line
/// every ten seconds elsewhere. Work that ends within a second is not announced.
pub(crate) async fn announce<W: Future>(doing: &str, work: W) -> W::Output {
    let mut work = std::pin::pin!(work);
    let started = Instant::now();
    if let Ok(done) = tokio::time::timeout(UNANNOUNCED, &mut work).await {
        return done;
    }
    if is_interactive() {
        let spinner = ProgressBar::new_spinner().with_elapsed(UNANNOUNCED);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.set_message(doing.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        let done = work.await;
        spinner.finish_and_clear();
        return done;
    }
    remind(doing, started, work, |line| error_line!("weir: {line}")).await
}

/// Awaits work, and says from time to time that it goes on.
async fn remind<W: Future>(doing: &str, started: Instant, work: W, mut say: impl FnMut(&str)) -> W::Output {
    let mut work = std::pin::pin!(work);
    say(doing);
    loop {
        match tokio::time::timeout(REMINDER, &mut work).await {
            Ok(done) => return done,
            Err(_) => say(&format!("{doing}, {} s so far", started.elapsed().as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_work_is_announced_and_said_to_go_on() {
        let mut said = Vec::new();
        let work = tokio::time::sleep(Duration::from_secs(25));
        remind("compiling", Instant::now(), work, |line| {
            said.push(line.to_owned())
        })
        .await;
        assert_eq!(
            said,
            ["compiling", "compiling, 10 s so far", "compiling, 20 s so far"]
        );
    }

    #[test]
    fn one_line_has_no_control_characters() {
        assert_eq!(one_line("a\nb\u{1b}[2Jc\u{9b}d"), "a b [2Jc d");
    }
}
