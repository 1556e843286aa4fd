//! What a job's components said, and how they failed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::JobId;
use weir_core::ports::Ledger as _;
use weir_core::said::{FailureReport, Frame, LogEntry, LogLevel, Remark};
use weir_core::tenancy::Scope;

use super::view::{ErrorView, find};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Params, Route};

/// Entries of one answer, where nothing else is asked for, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// Only those after this one: `next` of the answer before.
    #[param(minimum = 0, maximum = 9223372036854775807_i64)]
    after: Option<u64>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// What a job's components said.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobLog {
    /// In the order it was said.
    entries: Vec<LogEntryView>,
    /// Give this as `after` to get the next ones; null if there are none by now.
    next: Option<u64>,
}

/// Something a component said or did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogEntryView {
    /// Its place, from 1.
    seq: u64,
    /// Milliseconds since the job was made.
    at_millis: u64,
    /// The component.
    component: String,
    /// The function it was asked in, such as `routing.page`; `start` while it was instantiated.
    function: String,
    /// How urgent a line is, in its component's opinion; `error` for a failure.
    level: LevelName,
    /// The line, or how the call failed.
    message: String,
    /// The report, if the call failed.
    failure: Option<FailureView>,
}

/// How urgent a line is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LevelName {
    /// For who looks for a mistake.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

/// How a call of a component failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailureView {
    /// What went wrong.
    error: ErrorView,
    /// SHA-256 of the component, in hexadecimal.
    version: String,
    /// The call's place among those of this component since the job was opened, from 0, as in the job's recording.
    turn: u32,
    /// SHA-256 of what it was asked, in hexadecimal: equal questions have equal ones. Null where it was asked nothing yet.
    question: Option<String>,
    /// The limit it went over, if it was one.
    limit: Option<String>,
    /// What it said about it itself: a panic's message, or an exception with its traceback.
    said: Option<String>,
    /// Where it was, innermost first.
    backtrace: Vec<FrameView>,
}

/// A function of a component that was under way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FrameView {
    /// Its name.
    function: String,
    /// The file, if the component was built with such information.
    file: Option<String>,
    /// The line in it, from 1.
    line: Option<u32>,
}

impl From<LogLevel> for LevelName {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}

impl From<Frame> for FrameView {
    fn from(Frame { function, file, line }: Frame) -> Self {
        Self { function, file, line }
    }
}

impl From<FailureReport> for FailureView {
    fn from(report: FailureReport) -> Self {
        Self {
            error: report.error.into(),
            version: report.version,
            turn: report.turn,
            question: report.question,
            limit: report.limit,
            said: report.said,
            backtrace: report.backtrace.into_iter().map(FrameView::from).collect(),
        }
    }
}

impl From<LogEntry> for LogEntryView {
    fn from(entry: LogEntry) -> Self {
        let Remark {
            component,
            function,
            what,
        } = entry.remark;
        Self {
            seq: entry.seq,
            at_millis: entry.at_millis,
            component,
            function,
            level: what.level().into(),
            message: what.message().to_owned(),
            failure: what.failure().cloned().map(FailureView::from),
        }
    }
}

/// What the job's components said and how their calls failed, in order: lines they wrote, and a report of each failed call,
/// with where in the component it was. A job keeps up to 1,000 lines and 100 reports, a tenant the latest 10,000 entries; they
/// are there within a moment of being said.
#[utoipa::path(get, path = "/v1/jobs/{job}/log", tag = "jobs",
    params(("job" = String, Path, description = "the job's id", format = Uuid), LogQuery),
    responses(
        (status = 200, description = "the log", body = JobLog),
        (status = 400, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn job_log(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(job): Route<JobId>,
    Params(query): Params<LogQuery>,
) -> Result<Json<JobLog>, Problem> {
    caller.may(Scope::Read)?;
    let (after, limit) = (query.after.unwrap_or(0), query.limit.unwrap_or(USUAL));
    if !(1..=MOST).contains(&limit) || after > i64::MAX.cast_unsigned() {
        return Err(Problem::invalid(format!(
            "limit is from 1 to {MOST}, and after is the place of an entry"
        )));
    }
    find(&app, caller.id(), &job).await?;
    let mut entries = app.ledger.said(caller.id(), &job, after, limit + 1).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Json(JobLog {
        next: entries.last().map(|entry| entry.seq).filter(|_| more),
        entries: entries.into_iter().map(LogEntryView::from).collect(),
    }))
}
