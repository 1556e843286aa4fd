//! Jobs as the API returns them.

use serde::Serialize;
use utoipa::ToSchema;
use weir_control::Control;
use weir_control::admission::UnfinishedJobStatus;
use weir_control::jobs::{
    ComponentProgressUpdate, DocumentProgress, DocumentState, JobWithProgress, find_job_and_request,
};
use weir_core::event::{ErrorInfo, FailedPage};
use weir_core::job_request::{JobRequest, RequestedFile};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::llm::ProviderFailureInfo;
use weir_core::{DocumentId, JobId, PriorityLane, TenantId};

use crate::intake::LaneName;
use crate::problem::Problem;

/// The value of `held` for a running job that waits for language models.
const HELD_BY_LANGUAGE_MODEL: &str = "language-model";

/// The state of a job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)] // only its description is used
pub(crate) enum JobStateName {
    /// It is queued.
    Queued,
    /// It is being processed.
    Running,
    /// Every document is done.
    Done,
    /// A document failed.
    Failed,
    /// It was canceled.
    Cancelled,
}

/// The state of a document in a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = DocumentState)]
pub(crate) enum DocumentStateName {
    /// It has not been started.
    Waiting,
    /// It is being processed.
    Running,
    /// Every page was finished or failed.
    Done,
    /// The document failed.
    Failed,
    /// The document was canceled.
    Cancelled,
}

impl From<DocumentState> for DocumentStateName {
    fn from(state: DocumentState) -> Self {
        match state {
            DocumentState::Waiting => Self::Waiting,
            DocumentState::Running => Self::Running,
            DocumentState::Done => Self::Done,
            DocumentState::Failed => Self::Failed,
            DocumentState::Cancelled => Self::Cancelled,
        }
    }
}

/// A progress update that a progress component computed for the user.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ProgressUpdateView {
    /// The progress in percent, from 0 to 100.
    percent: f32,
    /// A message for the user.
    message: String,
    /// The estimated remaining time in seconds; null if it is unknown.
    seconds_left: Option<u32>,
}

impl From<ComponentProgressUpdate> for ProgressUpdateView {
    fn from(update: ComponentProgressUpdate) -> Self {
        Self {
            percent: update.percent,
            message: update.message,
            seconds_left: update.seconds_left,
        }
    }
}

/// An error.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ErrorView {
    /// The error kind, a stable identifier for programs.
    kind: String,
    /// One line for people.
    message: String,
}

impl From<ErrorInfo> for ErrorView {
    fn from(error: ErrorInfo) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
        }
    }
}

/// A job in the list of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSummary {
    /// The id of the job.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// The state of the job.
    #[schema(value_type = JobStateName)]
    state: JobState,
    /// The name of its pipeline.
    pipeline: String,
    /// When it was created, in milliseconds since 1970.
    created_millis: u64,
}

impl From<JobRecord> for JobSummary {
    fn from(record: JobRecord) -> Self {
        Self {
            id: record.id,
            state: record.state,
            pipeline: record.pipeline,
            created_millis: record.created_millis,
        }
    }
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobView {
    /// The id of the job.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// The state of the job.
    #[schema(value_type = JobStateName)]
    state: JobState,
    /// Whether it has been asked to stop and is still running.
    cancelling: bool,
    /// The name of its pipeline.
    pipeline: String,
    /// The hash over the components and settings of the revision that it runs, or ran last.
    revision: String,
    /// The number of the pipeline revision that was assigned to it; null if it has not started or the pipeline is the host's.
    pipeline_revision: Option<u32>,
    /// The requested lane; null if the routing component decides.
    #[schema(value_type = Option<LaneName>)]
    lane: Option<PriorityLane>,
    /// Its position among the tenant's queued jobs, from 1.
    position: Option<usize>,
    /// Why the job does not continue; null if nothing holds it. The jobs of a tenant are held while queued by an exhausted quota (its
    /// name), by `suspended`, or by `storage` if results cannot be stored. A running job is held by `language-model` while its
    /// requests wait for the failing providers in `waits_for`.
    #[schema(value_type = Option<String>)]
    held: Option<&'static str>,
    /// The failing providers of language models that requests of the job wait for.
    waits_for: Vec<FailingProviderView>,
    /// When it was created, in milliseconds since 1970.
    created_millis: u64,
    /// When it started, in milliseconds since 1970; null if it has not.
    started_millis: Option<u64>,
    /// When it ended, in milliseconds since 1970; null if it has not.
    ended_millis: Option<u64>,
    /// Its documents, in the order of the request; empty for a job of `weir run`.
    documents: Vec<DocumentView>,
}

/// A failing provider of language models.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct FailingProviderView {
    /// The name of the provider in the host's settings.
    provider: String,
    /// Since when it has failed, in milliseconds since 1970.
    since_millis: u64,
    /// Its last error.
    error: ErrorView,
}

impl From<ProviderFailureInfo> for FailingProviderView {
    fn from(failing: ProviderFailureInfo) -> Self {
        Self {
            provider: failing.provider,
            since_millis: failing.since_millis,
            error: failing.error.into(),
        }
    }
}

/// A document of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentView {
    /// The name of its file in this job.
    name: String,
    /// The id of the document.
    #[schema(value_type = String)]
    document: DocumentId,
    /// Its size in bytes.
    bytes: u64,
    /// Its state in this job.
    state: DocumentStateName,
    /// The number of requested pages; null before the document was opened.
    pages: Option<u32>,
    /// The number of pages finished by this job or an earlier one.
    done: u32,
    /// The number of searchable pages. While the document is running, only the pages that this job has made searchable count.
    searchable: u32,
    /// The number of failed pages.
    failed: u32,
    /// The first twenty failed pages.
    failures: Vec<PageFailure>,
    /// The last update from the pipeline's progress component.
    progress: Option<ProgressUpdateView>,
    /// The error, if the document failed.
    error: Option<ErrorView>,
}

/// A page that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageFailure {
    /// The page number, from 1.
    page: u32,
    /// The error kind, a stable identifier for programs.
    kind: String,
    /// One line for people.
    message: String,
}

impl From<&FailedPage> for PageFailure {
    fn from(failed: &FailedPage) -> Self {
        Self {
            page: failed.page,
            kind: failed.error.kind.clone(),
            message: failed.error.message.clone(),
        }
    }
}

impl DocumentView {
    fn new(file: &RequestedFile, progress: Option<&DocumentProgress>) -> Self {
        let progress = progress.cloned().unwrap_or_default();
        Self {
            name: file.name.clone(),
            document: file.document,
            bytes: file.bytes,
            state: progress.state.into(),
            pages: progress.pages,
            done: progress.done_pages,
            searchable: progress.searchable_pages,
            failed: progress.failed_pages,
            failures: progress.failures.iter().map(PageFailure::from).collect(),
            progress: progress.last_update.map(ProgressUpdateView::from),
            error: progress.error.map(ErrorView::from),
        }
    }
}

impl JobView {
    /// Loads a tenant's job. Returns a problem if it does not exist.
    pub(crate) async fn load_job_view(
        control: &Control,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Self, Problem> {
        let found = control
            .progress_cache
            .load_job(
                control.job_requests.as_ref(),
                control.ledger.as_ref(),
                tenant,
                job,
            )
            .await?;
        Ok(Self::build_job_view(control, found.ok_or_else(job_not_found)?))
    }

    fn build_job_view(control: &Control, job: JobWithProgress) -> Self {
        let JobWithProgress {
            record,
            request,
            assigned_revision,
            progress,
        } = job;
        let (tenant, id) = (&record.tenant, record.id);
        let (lane, files) = request
            .map(|request| (request.lane, request.files))
            .unwrap_or_default();
        let status = control
            .admission
            .unfinished_job_status(tenant, id)
            .filter(|_| !record.state.is_terminal());
        let (position, held, running_since_millis, cancelling) = match status {
            Some(UnfinishedJobStatus::Queued { position, held }) => (Some(position), held, None, false),
            Some(UnfinishedJobStatus::Running {
                since_millis,
                cancelling,
            }) => {
                let held = (!progress.failing_providers.is_empty()).then_some(HELD_BY_LANGUAGE_MODEL);
                (None, held, Some(since_millis), cancelling)
            }
            None => (None, None, None, false),
        };
        let created_millis = record.created_millis;
        let documents = progress.find_progress_of_files(&files).into_iter().zip(&files);
        Self {
            state: record.state,
            cancelling,
            pipeline: record.pipeline,
            revision: record.revision.to_string(),
            pipeline_revision: assigned_revision.map(|assignment| assignment.revision),
            lane,
            position,
            held,
            waits_for: progress
                .failing_providers
                .iter()
                .cloned()
                .map(FailingProviderView::from)
                .collect(),
            created_millis,
            started_millis: progress
                .first_event_millis
                .map(|after| created_millis + after)
                .or(running_since_millis),
            ended_millis: record
                .state
                .is_terminal()
                .then_some(created_millis + progress.last_event_millis),
            documents: documents
                .map(|(document_progress, file)| DocumentView::new(file, document_progress))
                .collect(),
            id,
        }
    }
}

/// Loads the record and the job request of a tenant's job. A job of `weir run` has no job request.
pub(super) async fn load_job_and_request(
    control: &Control,
    tenant: &TenantId,
    job: &JobId,
) -> Result<(JobRecord, Option<JobRequest>), Problem> {
    let found = find_job_and_request(control, tenant, job).await?;
    found.ok_or_else(job_not_found)
}

fn job_not_found() -> Problem {
    Problem::not_found("there is no job with this id")
}
