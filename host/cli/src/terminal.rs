//! Output to standard output and standard error, and the exit codes of `weir`.
//!
//! A reader may close its end of a pipe at any time (`weir settings | head`). The command does not fail then: further output is
//! dropped, and the exit code is that of its work. `println!` would panic instead, so all output of this crate goes through this
//! module. The lints `print_stdout` and `print_stderr` check that.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// Exit code if the command or a document failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code if the command line or a setting is invalid. clap uses the same code.
pub(crate) const EXIT_INVALID_USAGE: u8 = 2;

/// Whether the reader of standard output has closed its end of the pipe.
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output. Returns an error if the write fails, except for a closed pipe.
macro_rules! out_line {
    ($($text:tt)*) => { $crate::terminal::print_to_stdout(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a line to standard error. Errors of the write are ignored.
macro_rules! error_line {
    ($($text:tt)*) => { $crate::terminal::print_to_stderr(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {error_line, out_line};

/// Writes text to standard output and flushes it. A closed pipe is not an error.
pub(crate) fn print_to_stdout(text: fmt::Arguments<'_>) -> io::Result<()> {
    if is_stdout_reader_gone() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            STDOUT_CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => written,
    }
}

/// Whether the reader of standard output is gone, so that a long listing can stop.
pub(crate) fn is_stdout_reader_gone() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

/// Writes text to standard error. Errors are ignored, because there is no other output to report them to.
pub(crate) fn print_to_stderr(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Prints an error with its causes on one line and returns the exit code.
pub(crate) fn print_error_returning_exit_code(error: &anyhow::Error, code: u8) -> ExitCode {
    let line = format!("{error:#}").replace('\n', " ");
    error_line!("weir: {line}");
    ExitCode::from(code)
}

/// Whether standard error is a terminal that can redraw a line.
pub(crate) fn is_stderr_interactive() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Replaces the control characters in a text by spaces, so that text of a document or a component stays on one line and cannot
/// control the terminal.
pub(crate) fn replace_control_characters(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Work that ends within this time prints nothing.
const ANNOUNCE_AFTER: Duration = Duration::from_secs(1);
/// Time between two lines about ongoing work if standard error is no terminal.
const REMINDER_INTERVAL: Duration = Duration::from_secs(10);

/// Awaits work that may take long and reports it on standard error: with a spinner and the elapsed time on a terminal, otherwise
/// with a line every ten seconds. Prints nothing if the work ends within a second.
pub(crate) async fn await_with_progress<W: Future>(activity: &str, work: W) -> W::Output {
    let mut work = std::pin::pin!(work);
    let started = Instant::now();
    if let Ok(done) = tokio::time::timeout(ANNOUNCE_AFTER, &mut work).await {
        return done;
    }
    if is_stderr_interactive() {
        let spinner = ProgressBar::new_spinner().with_elapsed(ANNOUNCE_AFTER);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.set_message(activity.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        let done = work.await;
        spinner.finish_and_clear();
        return done;
    }
    await_with_reminders(activity, started, work, |line| error_line!("weir: {line}")).await
}

/// Awaits work and prints a line with the elapsed time at regular intervals.
async fn await_with_reminders<W: Future>(
    activity: &str,
    started: Instant,
    work: W,
    mut print_line: impl FnMut(&str),
) -> W::Output {
    let mut work = std::pin::pin!(work);
    print_line(activity);
    loop {
        match tokio::time::timeout(REMINDER_INTERVAL, &mut work).await {
            Ok(done) => return done,
            Err(_) => print_line(&format!("{activity}, {} s elapsed", started.elapsed().as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_work_prints_reminders() {
        let mut lines = Vec::new();
        let work = tokio::time::sleep(Duration::from_secs(25));
        await_with_reminders("compiling", Instant::now(), work, |line| {
            lines.push(line.to_owned())
        })
        .await;
        assert_eq!(
            lines,
            ["compiling", "compiling, 10 s elapsed", "compiling, 20 s elapsed"]
        );
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(replace_control_characters("a\nb\u{1b}[2Jc\u{9b}d"), "a b [2Jc d");
    }
}
