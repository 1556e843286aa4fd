//! A session on a PostgreSQL server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The line that `psql` prints after each statement.
const END: &str = "-- end of the statement --";

/// A session that stays open, for example to hold a lock. It ends when the value is dropped, and its locks are released.
pub struct PostgresSession {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl PostgresSession {
    /// Starts `psql`, which `command` runs with the options of the connection.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command
            .args(["--quiet", "--no-align", "--tuples-only", "--no-psqlrc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    /// Runs a statement and returns its rows, one on each line, with columns separated by `|`. Panics if the session has ended.
    pub fn query(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql};\n\\echo {END}").unwrap();
        let mut rows = Vec::new();
        for line in (&mut self.output).lines() {
            match line.unwrap() {
                end if end == END => return rows.join("\n"),
                row => rows.push(row),
            }
        }
        panic!("the session has ended");
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
