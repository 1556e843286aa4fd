//! The exit codes of `weir`.

use std::process::ExitCode;

use crate::terminal::error_line;

/// Exit code if the command or a document failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code if the command line or a setting is invalid. clap uses the same code.
pub(crate) const EXIT_INVALID_USAGE: u8 = 2;

/// Prints an error with its causes on one line and returns the exit code.
pub(crate) fn print_error_returning_exit_code(error: &anyhow::Error, code: u8) -> ExitCode {
    let line = format!("{error:#}").replace('\n', " ");
    error_line!("weir: {line}");
    ExitCode::from(code)
}
