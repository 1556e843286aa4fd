//! Jobs as clients see them.

use serde::Serialize;
use utoipa::ToSchema;
use weir_core::event::{ErrorNote, FailedPage};
use weir_core::language::FailingProvider;
use weir_core::ledger::{JobRecord, JobState};
use weir_core::order::{Order, OrderedFile};
use weir_core::ports::Ledger as _;
use weir_core::{DocumentId, JobId, Lane, StorageError, TenantId};

use super::progress::{DocumentProgress, DocumentState, Said};
use crate::admission::Standing;
use crate::app::App;
use crate::intake::LaneName;
use crate::problem::Problem;

/// The word for a job in work that waits for language models.
const LANGUAGE_MODEL: &str = "language-model";

/// Where a job stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)] // only its description is used
pub(crate) enum JobStateName {
    /// Waiting for its turn.
    Queued,
    /// In work.
    Running,
    /// Every document ended well.
    Done,
    /// A document failed.
    Failed,
    /// Stopped on request.
    Cancelled,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ErrorView {
    /// A stable word for programs.
    kind: String,
    /// One line for people.
    message: String,
}

impl From<ErrorNote> for ErrorView {
    fn from(error: ErrorNote) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
        }
    }
}

/// A job in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSummary {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// Where it stands.
    #[schema(value_type = JobStateName)]
    state: JobState,
    /// The pipeline it runs.
    pipeline: String,
    /// When it was made, in milliseconds since 1970.
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
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// Where it stands.
    #[schema(value_type = JobStateName)]
    state: JobState,
    /// Whether it has been told to stop and has not yet.
    cancelling: bool,
    /// The pipeline it runs.
    pipeline: String,
    /// What it runs, or ran last: a hash over the components and settings.
    revision: String,
    /// The number of the pipeline's revision that it was given, if the pipeline is the tenant's and the job has begun.
    pipeline_revision: Option<u32>,
    /// The lane that was asked for; null if the size of the files decides.
    #[schema(value_type = Option<LaneName>)]
    lane: Option<Lane>,
    /// Its place among the tenant's own jobs that wait, from 1.
    position: Option<usize>,
    /// What keeps the job from going on, if something does. Of a job that waits: the name of a quota, `suspended`, or `storage`
    /// if nothing can be kept, which hold all of the tenant's jobs. Of a job in work: `language-model` if its requests wait for
    /// failing language models, which `waits_for` lists.
    #[schema(value_type = Option<String>)]
    held: Option<&'static str>,
    /// The failing language models that requests of the job wait for.
    waits_for: Vec<ProviderView>,
    /// When it was made, in milliseconds since 1970.
    created_millis: u64,
    /// When work on it began, if it has.
    started_millis: Option<u64>,
    /// When it ended, if it has.
    ended_millis: Option<u64>,
    /// Its documents, in the order of the request; none for a job of `weir run`.
    documents: Vec<DocumentView>,
}

/// A provider of language models that has failed for some time.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ProviderView {
    /// Its name in the host's settings.
    provider: String,
    /// Since when it has not answered, in milliseconds since 1970.
    since_millis: u64,
    /// Its last error.
    error: ErrorView,
}

impl From<FailingProvider> for ProviderView {
    fn from(failing: FailingProvider) -> Self {
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
    /// What it was called.
    name: String,
    /// Its id.
    #[schema(value_type = String)]
    document: DocumentId,
    /// Its size.
    bytes: u64,
    /// Where it stands.
    state: DocumentState,
    /// Pages asked for; null before it was opened.
    pages: Option<u32>,
    /// Pages done, by this job or an earlier one.
    done: u32,
    /// Pages that can be found; while the document is in work, those this job has made so.
    searchable: u32,
    /// Pages that failed.
    failed: u32,
    /// The first twenty of them.
    failures: Vec<PageFailure>,
    /// What the pipeline's progress component said last.
    progress: Option<Said>,
    /// Why it could not be done, if so.
    error: Option<ErrorView>,
}

/// A page that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageFailure {
    /// The page, from 1.
    page: u32,
    /// A stable word for programs.
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
    fn new(file: &OrderedFile, seen: Option<&DocumentProgress>) -> Self {
        let seen = seen.cloned().unwrap_or_default();
        Self {
            name: file.name.clone(),
            document: file.document,
            bytes: file.bytes,
            state: seen.state,
            pages: seen.pages,
            done: seen.done,
            searchable: seen.searchable,
            failed: seen.failed,
            failures: seen.failures.iter().map(PageFailure::from).collect(),
            progress: seen.said,
            error: seen.error.map(ErrorView::from),
        }
    }
}

impl JobView {
    /// A tenant's job; a problem if there is none of this id.
    pub(crate) async fn find(app: &App, tenant: &TenantId, job: &JobId) -> Result<Self, Problem> {
        let (record, order) = find(app, tenant, job).await?;
        Ok(Self::of(app, record, order).await?)
    }

    /// A job with its documents.
    pub(crate) async fn of(app: &App, record: JobRecord, order: Option<Order>) -> Result<Self, StorageError> {
        let (tenant, id) = (&record.tenant, record.id);
        let progress = app.progress.of(app.ledger.as_ref(), tenant, &id).await?;
        let given = app.shelf.book.assignment(tenant, &id).await?;
        let (lane, files) = order.map(|order| (order.lane, order.files)).unwrap_or_default();
        let standing = app
            .admission
            .standing(tenant, id)
            .filter(|_| !record.state.is_ended());
        let (position, held, since, cancelling) = match standing {
            Some(Standing::Waiting { position, held }) => (Some(position), held, None, false),
            Some(Standing::Running {
                since_millis,
                cancelling,
            }) => {
                let held = (!progress.waits_for.is_empty()).then_some(LANGUAGE_MODEL);
                (None, held, Some(since_millis), cancelling)
            }
            None => (None, None, None, false),
        };
        let made = record.created_millis;
        let documents = progress.of_files(&files).into_iter().zip(&files);
        Ok(Self {
            state: record.state,
            cancelling,
            pipeline: record.pipeline,
            revision: record.revision.to_string(),
            pipeline_revision: given.map(|given| given.revision),
            lane,
            position,
            held,
            waits_for: progress
                .waits_for
                .iter()
                .cloned()
                .map(ProviderView::from)
                .collect(),
            created_millis: made,
            started_millis: progress.began_millis.map(|after| made + after).or(since),
            ended_millis: record.state.is_ended().then_some(made + progress.at_millis),
            documents: documents
                .map(|(seen, file)| DocumentView::new(file, seen))
                .collect(),
            id,
        })
    }
}

/// A tenant's job with its order. One that ran by `weir run` has no order.
pub(super) async fn find(
    app: &App,
    tenant: &TenantId,
    job: &JobId,
) -> Result<(JobRecord, Option<Order>), Problem> {
    let (record, order) = tokio::try_join!(app.ledger.job(tenant, job), app.orders.order(tenant, job))?;
    let record = record.ok_or_else(|| Problem::not_found("there is no job of this id"))?;
    Ok((record, order))
}
