//! The component log of a job: the lines that its components wrote, and the reports of their failed calls.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_control::Control;
use weir_core::JobId;
use weir_core::component_log::{
    BacktraceFrame, ComponentFailureReport, ComponentLogRecord, LogLevel, NumberedComponentLogRecord,
};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use super::view::{ErrorView, load_job_and_request};
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;

/// The default and the maximum number of entries in one response.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// The query parameters of the component log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ComponentLogQuery {
    /// Return only entries after this one: `next` of the previous response.
    #[param(minimum = 0, maximum = 9223372036854775807_i64)]
    after: Option<u64>,
    /// The maximum number of entries.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// A part of the component log of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobLog {
    /// The entries, oldest first.
    entries: Vec<LogEntryView>,
    /// The value of `after` for the next entries; null if there are none yet.
    next: Option<u64>,
}

/// A line that a component wrote, or a failed call of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogEntryView {
    /// The number of the entry, from 1.
    seq: u64,
    /// Milliseconds since the job was created.
    at_millis: u64,
    /// The component.
    component: String,
    /// The called function, such as `routing.page`; `start` during instantiation.
    function: String,
    /// The level of the line as the component gave it; `error` for a failed call.
    level: LogLevelName,
    /// The line, or the error of the call.
    message: String,
    /// The failure report, if the call failed.
    failure: Option<CallFailureView>,
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevelName {
    /// Details for debugging.
    Debug,
    /// Information.
    Info,
    /// Something unexpected.
    Warn,
    /// An error.
    Error,
}

/// The report of a failed call of a component.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallFailureView {
    /// The error.
    error: ErrorView,
    /// The SHA-256 of the component, in hexadecimal.
    component_digest: String,
    /// The index of the call among the calls of this component since the job was opened, from 0, as in the job's recording.
    call_index: u32,
    /// The SHA-256 of the call's input, in hexadecimal: equal inputs have equal hashes. Null if the call had no input yet.
    request_digest: Option<String>,
    /// The limit that the call exceeded, if there is one.
    limit: Option<String>,
    /// The error output of the component: the message of a panic, or an exception with its traceback.
    guest_message: Option<String>,
    /// The call stack, innermost function first.
    backtrace: Vec<StackFrameView>,
}

/// A stack frame of a component.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StackFrameView {
    /// The name of the function.
    function: String,
    /// The source file, if the component was built with debug information.
    file: Option<String>,
    /// The line in the source file, from 1.
    line: Option<u32>,
}

impl From<LogLevel> for LogLevelName {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}

impl From<BacktraceFrame> for StackFrameView {
    fn from(BacktraceFrame { function, file, line }: BacktraceFrame) -> Self {
        Self { function, file, line }
    }
}

impl From<ComponentFailureReport> for CallFailureView {
    fn from(report: ComponentFailureReport) -> Self {
        Self {
            error: report.error.into(),
            component_digest: report.component_digest,
            call_index: report.call_index,
            request_digest: report.request_digest,
            limit: report.limit,
            guest_message: report.guest_message,
            backtrace: report.backtrace.into_iter().map(StackFrameView::from).collect(),
        }
    }
}

impl From<NumberedComponentLogRecord> for LogEntryView {
    fn from(entry: NumberedComponentLogRecord) -> Self {
        let ComponentLogRecord {
            component,
            function,
            kind: what,
        } = entry.record;
        Self {
            seq: entry.seq,
            at_millis: entry.since_job_created_millis,
            component,
            function,
            level: what.level().into(),
            message: what.message().to_owned(),
            failure: what.failure_report().cloned().map(CallFailureView::from),
        }
    }
}

/// Get the component log of a job.
///
/// It contains the lines that the job's components wrote and a report of each failed call with its call stack, in order. The host
/// stores up to 1,000 lines and 100 reports for each job, and the latest 10,000 entries of each tenant. An entry can be read a moment
/// after it was written.
#[utoipa::path(get, path = "/v1/jobs/{job}/log", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job", format = Uuid), ComponentLogQuery),
    responses(
        (status = 200, description = "The component log", body = JobLog),
        (status = 400, description = "A parameter is out of range", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_job_log(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
    QueryParams(query): QueryParams<ComponentLogQuery>,
) -> Result<Json<JobLog>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let (after, limit) = (query.after.unwrap_or(0), query.limit.unwrap_or(DEFAULT_LIMIT));
    if !(1..=MAX_LIMIT).contains(&limit) || after > i64::MAX.cast_unsigned() {
        return Err(Problem::invalid_request(format!(
            "limit must be from 1 to {MAX_LIMIT}, and after must be the number of an entry"
        )));
    }
    load_job_and_request(&control, caller.tenant_id(), &job).await?;
    let mut entries = control
        .ledger
        .list_component_log(caller.tenant_id(), &job, after, limit + 1)
        .await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Json(JobLog {
        next: entries.last().map(|entry| entry.seq).filter(|_| more),
        entries: entries.into_iter().map(LogEntryView::from).collect(),
    }))
}
