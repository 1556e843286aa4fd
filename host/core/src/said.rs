//! What a job's components said and how they failed, for the tenant who wrote them.
//!
//! Both stand in one sequence, so that the last lines before a failure are those in front of it. It is apart from the event
//! log: events are told to the progress component, which may write to the log in answer, and would never come to an end.

use serde::{Deserialize, Serialize};

use crate::event::ErrorNote;
use crate::id::JobId;

/// How urgent a line is, in its component's opinion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// For who looks for a mistake.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

/// An entry of the log of a job's components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The job.
    pub job: JobId,
    /// Place in the log; the first is 1 and none is left out.
    pub seq: u64,
    /// Milliseconds since the job was made.
    pub at_millis: u64,
    /// Who said what.
    #[serde(flatten)]
    pub remark: Remark,
}

/// Something a component said or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// The component's name in the manifest.
    pub component: String,
    /// The function it was asked in, such as `routing.page`; `start` while it was instantiated.
    pub function: String,
    /// What it was.
    #[serde(flatten)]
    pub what: RemarkKind,
}

/// What it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RemarkKind {
    /// It wrote a line, of at most 1000 characters.
    Line {
        /// How urgent it is.
        level: LogLevel,
        /// The line.
        message: String,
    },
    /// It did not answer, or not sensibly.
    Failure(Box<FailureReport>),
}

impl RemarkKind {
    /// How urgent it is: a failure is as urgent as a line can be.
    pub const fn level(&self) -> LogLevel {
        match self {
            Self::Line { level, .. } => *level,
            Self::Failure(_) => LogLevel::Error,
        }
    }

    /// The line, or how the call failed.
    pub fn message(&self) -> &str {
        match self {
            Self::Line { message, .. } => message,
            Self::Failure(report) => &report.error.message,
        }
    }

    /// The report, if the call failed.
    pub fn failure(&self) -> Option<&FailureReport> {
        match self {
            Self::Line { .. } => None,
            Self::Failure(report) => Some(report),
        }
    }
}

/// How a call of a component failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// What went wrong.
    pub error: ErrorNote,
    /// SHA-256 of the component, in hexadecimal.
    pub version: String,
    /// The call's place among those of this component since the job was opened, from 0, as in the job's recording.
    pub turn: u32,
    /// SHA-256 of what it was asked, in hexadecimal: equal questions have equal ones. None where it was asked nothing yet.
    pub question: Option<String>,
    /// The limit it went over, if it was one.
    pub limit: Option<String>,
    /// What it said about it itself: a panic's message, or an exception with its traceback. May have several lines.
    pub said: Option<String>,
    /// Where it was, innermost first; at most 20.
    pub backtrace: Vec<Frame>,
}

/// A function of a guest that was under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its name, as its author wrote it where the component has names.
    pub function: String,
    /// The file, if the component was built with such information.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
}
