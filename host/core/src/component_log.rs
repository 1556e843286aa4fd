//! The component log: lines and failures of a job's components, for the tenant who wrote them.
//!
//! Lines and failures share one sequence, so the last lines before a failure directly precede it. The component log
//! is separate from the event log. The progress component receives each event and can log in response, so in a shared
//! log each line would cause another one.

use serde::{Deserialize, Serialize};

use crate::event::ErrorInfo;
use crate::id::JobId;

/// Level of a log line, as the component chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// For debugging.
    Debug,
    /// Normal operation.
    Info,
    /// Something is unexpected.
    Warn,
    /// Something has failed.
    Error,
}

/// An entry of the log of a job's components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedComponentLogRecord {
    /// The job.
    pub job: JobId,
    /// Position in the log. The first is 1, and no number is skipped.
    pub seq: u64,
    /// Milliseconds since the job was created.
    #[serde(rename = "at_millis")]
    pub since_job_created_millis: u64,
    /// The record.
    #[serde(flatten)]
    pub record: ComponentLogRecord,
}

/// A log line or a failed call of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentLogRecord {
    /// Name of the component in the manifest.
    pub component: String,
    /// The called function, such as `routing.page`; `start` during instantiation.
    pub function: String,
    /// The line or the failure.
    #[serde(flatten)]
    pub kind: ComponentLogRecordKind,
}

/// The content of a component log record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ComponentLogRecordKind {
    /// A line of at most 1000 characters.
    Line {
        /// Level of the line.
        level: LogLevel,
        /// The line.
        message: String,
    },
    /// A failed call.
    Failure(Box<ComponentFailureReport>),
}

impl ComponentLogRecordKind {
    /// Returns the level. A failure has the highest level.
    pub const fn level(&self) -> LogLevel {
        match self {
            Self::Line { level, .. } => *level,
            Self::Failure(_) => LogLevel::Error,
        }
    }

    /// Returns the line, or the error message of the failed call.
    pub fn message(&self) -> &str {
        match self {
            Self::Line { message, .. } => message,
            Self::Failure(report) => &report.error.message,
        }
    }

    /// Returns the report, if the call failed.
    pub fn failure_report(&self) -> Option<&ComponentFailureReport> {
        match self {
            Self::Line { .. } => None,
            Self::Failure(report) => Some(report),
        }
    }
}

/// How a component call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentFailureReport {
    /// The error.
    pub error: ErrorInfo,
    /// SHA-256 of the component in hexadecimal.
    #[serde(rename = "version")]
    pub component_digest: String,
    /// Number of the call among those of this component since the job was opened, from 0, as in the recording of the
    /// job.
    #[serde(rename = "turn")]
    pub call_index: u32,
    /// SHA-256 of the call's arguments in hexadecimal. `None` if there was no call yet.
    #[serde(rename = "question")]
    pub request_digest: Option<String>,
    /// The exceeded limit, if there is one.
    pub limit: Option<String>,
    /// Message from the component: a panic message, or an exception with its traceback. It can have several lines.
    #[serde(rename = "said")]
    pub guest_message: Option<String>,
    /// Call stack, innermost frame first, at most 20 frames.
    pub backtrace: Vec<BacktraceFrame>,
}

/// A frame of a component's call stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacktraceFrame {
    /// Name of the function, as in the source code if the component contains names.
    pub function: String,
    /// Source file, if the component has debug information.
    pub file: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<u32>,
}
