//! Starts jobs on the engine when it is their turn, and follows each to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use weir_core::event::ErrorNote;
use weir_core::ledger::{JobRecord, JobState};
use weir_core::order::{Order, OrderOptions};
use weir_core::ports::Ledger as _;
use weir_core::rollout::Assignment;
use weir_core::tenancy::TenantState;
use weir_core::{StorageError, TenantId};
use weir_engine::{DocumentEnd, DocumentSpec, JobOutcome, JobSpec};

use super::conclude::count;
use super::{HELD, Next, Slot, conclude};
use crate::app::App;
use crate::pipelines::{self, Compared, Ended, PipelineError};
use crate::requests;

/// What holds jobs that cannot be read or written down.
const STORAGE: &str = "storage";

/// Starts jobs until `stop`, and returns when none is followed any more: the engine has to be ended for that.
pub(crate) async fn dispatch(app: Arc<App>, stop: CancellationToken) {
    let mut jobs = JoinSet::new();
    while !stop.is_cancelled() {
        match app.admission.next() {
            Next::Start(slot) => {
                let app = Arc::clone(&app);
                jobs.spawn(async move { follow(&app, slot).await });
            }
            Next::Ask(tenant) => ask(&app, tenant).await,
            Next::Wait => tokio::select! {
                () = stop.cancelled() => {}
                () = app.admission.woken() => {}
                Some(_) = jobs.join_next() => {}
                // Quotas of the day come back, and another process may change a tenant.
                () = tokio::time::sleep(HELD) => {}
            },
        }
    }
    while jobs.join_next().await.is_some() {}
}

/// Puts jobs that had not ended when the host did into the queue again.
pub(crate) async fn restore(app: &App) -> Result<(), StorageError> {
    for record in app.ledger.unfinished().await? {
        match app.orders.order(&record.tenant, &record.id).await? {
            Some(order) => app.admission.put(app.admission.waiting(&order, Duration::ZERO)),
            None => {
                tracing::warn!(job = %record.id, "a job without an order cannot go on");
                let error = note(
                    "no-order",
                    "the command that ran it has ended: run it again, what is done is not done twice",
                );
                conclude(app, record, None, Some(error)).await?;
            }
        }
    }
    Ok(())
}

/// Finds out what a tenant may do now.
async fn ask(app: &App, tenant: TenantId) {
    let answer = async {
        let Some(record) = app.registry.tenant(&tenant).await? else {
            return Ok((1.0, None, Some("removed")));
        };
        let limits = app.quotas.limits(&record);
        let held = match record.state {
            TenantState::Suspended => Some("suspended"),
            TenantState::Active if !has_room(app).await => Some("storage"),
            TenantState::Active => app
                .quotas
                .exhausted(app, &record)
                .await?
                .map(|exhausted| exhausted.quota),
        };
        Ok((record.weight, limits.concurrent_jobs, held))
    };
    let (weight, concurrent, held) = answer.await.unwrap_or_else(|error: StorageError| {
        tracing::warn!(%tenant, %error, "the tenant's jobs wait until its record can be read");
        (1.0, None, Some("storage"))
    });
    app.admission.agree(tenant, weight, concurrent, held);
}

/// Whether what a job makes can be kept. It is tried only where a job has failed because it could not.
async fn has_room(app: &App) -> bool {
    if !app.admission.is_full() {
        return true;
    }
    match app.engine.writable().await {
        Ok(()) => {
            tracing::info!("there is room again: jobs begin");
            app.admission.has_room();
            true
        }
        Err(error) => {
            tracing::warn!(%error, "no job begins until there is room");
            false
        }
    }
}

/// Why a job was not started.
enum Unstarted {
    /// It cannot be.
    Never(ErrorNote),
    /// Not now.
    Later(StorageError),
}

impl From<StorageError> for Unstarted {
    fn from(error: StorageError) -> Self {
        Self::Later(error)
    }
}

async fn follow(app: &App, slot: Slot) {
    let (tenant, job) = (&slot.job.tenant, slot.job.job);
    let read = async {
        let (record, order) = tokio::try_join!(app.ledger.job(tenant, &job), app.orders.order(tenant, &job))?;
        let missing = || note("no-order", "what was asked for is not known any more");
        record.zip(order).ok_or_else(|| Unstarted::Never(missing()))
    };
    let (record, order) = match read.await {
        Ok(read) => read,
        Err(Unstarted::Later(error)) => return later(app, slot, STORAGE, &error.to_string()).await,
        // Removed meanwhile, with its tenant: there is nobody to tell.
        Err(Unstarted::Never(_)) => return,
    };
    // Of the level of errors, so that whatever is logged of a job says whose it is.
    let span = tracing::error_span!("job", %job, %tenant);
    requests::goes_on(&span, order.trace.as_deref());
    start(app, slot, record, order).instrument(span).await;
}

async fn start(app: &App, slot: Slot, record: JobRecord, order: Order) {
    match specify(app, &slot, &record, &order).await {
        Ok((spec, given)) => {
            let first = record.state == JobState::Queued;
            run(app, slot, spec, given, &order.options, first).await;
        }
        Err(Unstarted::Later(error)) => later(app, slot, STORAGE, &error.to_string()).await,
        Err(Unstarted::Never(error)) => {
            if let Err(error) = conclude(app, record, Some(&order), Some(error)).await {
                later(app, slot, STORAGE, &error.to_string()).await;
            }
        }
    }
}

/// What the engine is told, and which revision the job was given if its pipeline is the tenant's.
async fn specify(
    app: &App,
    slot: &Slot,
    record: &JobRecord,
    order: &Order,
) -> Result<(JobSpec, Option<Assignment>), Unstarted> {
    let resolved = app
        .shelf
        .give(&order.tenant, &record.pipeline, &order.options, &order.job)
        .await;
    let (pipeline, given) = resolved.map_err(|error| {
        let kind = match error {
            PipelineError::Unknown(_) | PipelineError::Inactive(_) => "no-pipeline",
            PipelineError::Unusable { .. } => "pipeline-unusable",
            PipelineError::Storage(error) => return Unstarted::Later(error),
        };
        Unstarted::Never(note(kind, &error.to_string()))
    })?;
    let pages = order.options.pages.map(|(first, last)| first..=last);
    let documents = order.files.iter().map(|file| DocumentSpec {
        path: app.originals.path(&order.tenant, &file.document),
        name: file.name.clone(),
        password: file.password.clone(),
        pages: pages.clone(),
        missing: None,
    });
    let spec = JobSpec {
        id: order.job,
        tenant: order.tenant.clone(),
        pipeline: pipelines::within(app, &order.tenant, pipeline).await?,
        documents: documents.collect(),
        force: order.options.force,
        summarize: order.options.summarize,
        filing: order.options.filing.clone(),
        lane: Some(slot.job.lane),
        weight: slot.weight,
    };
    Ok((spec, given))
}

async fn run(
    app: &App,
    slot: Slot,
    spec: JobSpec,
    given: Option<Assignment>,
    options: &OrderOptions,
    first: bool,
) {
    let (tenant, job) = (spec.tenant.clone(), spec.id);
    let (pipeline, began) = (spec.pipeline.manifest.name.clone(), Instant::now());
    let handle = app.engine.start(spec);
    let outcome = tokio::select! {
        outcome = handle.wait() => outcome,
        () = slot.cancel.cancelled() => {
            handle.cancel();
            handle.wait().await
        }
    };
    if !outcome.state.is_ended() {
        if let Some(held) = outcome.held {
            return later(app, slot, held.quota, &held.to_string()).await;
        }
        let why = outcome.error.map(|error| error.message).unwrap_or_default();
        return later(app, slot, STORAGE, &why).await;
    }
    if wanted_room(&outcome) {
        // Before its place is free for another.
        app.admission.lacks_room();
    }
    count(outcome.state);
    if let Some(given) = given {
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = Ended {
            tenant: &tenant,
            job,
            pipeline: &pipeline,
            outcome: &outcome,
            millis: first.then_some(took),
        };
        pipelines::ended(&app.shelf, given, ended).await;
    }
    slot.settle(pages(&outcome));
    // Its place is for others while its shadow is asked.
    drop(slot);
    if let Some(given) = given {
        let ended = Compared {
            tenant: &tenant,
            job,
            pipeline: &pipeline,
            options,
        };
        let compared = pipelines::compare(app, given, ended);
        app.stopping.run_until_cancelled(compared).await;
    }
}

/// The job waits again, held by this, unless it was cancelled meanwhile. When the host stops nobody starts it any more, and the next start
/// finds it in the ledger.
async fn later(app: &App, slot: Slot, held: &'static str, why: &str) {
    if app.stopping.is_cancelled() {
        return;
    }
    let waiting = slot.job.clone();
    let (tenant, job) = (&waiting.tenant, waiting.job);
    if slot.cancel.is_cancelled() {
        let cancel = async {
            let (record, order) =
                tokio::try_join!(app.ledger.job(tenant, &job), app.orders.order(tenant, &job))?;
            if let Some(record) = record.filter(|record| !record.state.is_ended()) {
                conclude(app, record, order.as_ref(), None).await?;
            }
            Ok::<_, StorageError>(())
        };
        if let Err(error) = cancel.await {
            tracing::error!(%job, %error, "a job that was cancelled goes on at the next start");
        }
        return;
    }
    tracing::warn!(%job, held, why, "a job could not go on and waits again");
    drop(slot);
    app.admission.agree(tenant.clone(), 1.0, None, Some(held));
    app.admission.put(waiting);
}

/// Whether the job failed because what it made could not be kept.
fn wanted_room(outcome: &JobOutcome) -> bool {
    let full = StorageError::Full { what: String::new() };
    let of_documents = outcome
        .documents
        .iter()
        .filter_map(|document| match &document.end {
            DocumentEnd::Failed { error, .. } => Some(error),
            _ => None,
        });
    let mut errors = outcome.error.iter().chain(of_documents);
    errors.any(|error| error.kind == full.kind())
}

/// Pages that were worked on.
fn pages(outcome: &JobOutcome) -> f64 {
    let of = |end: &DocumentEnd| match end {
        DocumentEnd::Done { pages, skipped, .. } => f64::from(pages.saturating_sub(*skipped)),
        DocumentEnd::Failed { done, .. }
        | DocumentEnd::Cancelled { done }
        | DocumentEnd::Suspended { done } => f64::from(*done),
    };
    outcome.documents.iter().map(|document| of(&document.end)).sum()
}

fn note(kind: &str, message: &str) -> ErrorNote {
    ErrorNote {
        kind: kind.into(),
        message: message.into(),
    }
}
