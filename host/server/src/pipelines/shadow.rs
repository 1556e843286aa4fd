//! Shadows, asked after each job what they would have decided in it.
//!
//! One job of a tenant is compared at a time and a few of the host; a job that ends meanwhile is not compared. So shadows
//! never form a queue, and under load they are sampled rather than late.

use serde::Serialize;
use utoipa::ToSchema;
use weir_core::order::OrderOptions;
use weir_core::replay::ReplayReport;
use weir_core::rollout::{Arm, Assignment, Rollout};
use weir_core::shadow::{DIFFERENCES, Shadow, ShadowBook, ShadowRun, ShadowShowing};
use weir_core::{JobId, StorageError, TenantId};

use super::memory::within;
use super::replay::{DifferenceView, EffectView};
use crate::app::{App, now_millis};

/// Jobs of the whole host that are compared at once.
pub(super) const AT_ONCE: usize = 4;

/// A job that has ended, to be compared.
pub(crate) struct Compared<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) job: JobId,
    pub(crate) pipeline: &'a str,
    pub(crate) options: &'a OrderOptions,
}

/// Has the decisions of a job again by the shadow of its pipeline, if it has one, and writes down what differs.
pub(crate) async fn compare(app: &App, given: Assignment, ended: Compared<'_>) {
    if let Err(error) = compared(app, given, &ended).await {
        tracing::warn!(job = %ended.job, %error, "what a shadow would have decided is not known");
    }
}

async fn compared(app: &App, given: Assignment, ended: &Compared<'_>) -> Result<(), StorageError> {
    let shelf = &app.shelf;
    let record = shelf.book.pipeline(ended.tenant, ended.pipeline).await?;
    let shadow = record.and_then(|record| record.rollout.shadow);
    let Some(shadow) = shadow.filter(|shadow| shadow.revision != given.revision) else {
        return Ok(());
    };
    let Some(_turn) = shelf.comparing.take(ended.tenant) else {
        return Ok(());
    };
    shelf
        .shadows
        .put_shadow_run(&ShadowRun {
            tenant: ended.tenant.clone(),
            pipeline: ended.pipeline.to_owned(),
            revision: shadow.revision,
            job: ended.job,
            at_millis: now_millis(),
            report: again(app, shadow, ended).await,
        })
        .await
}

async fn again(app: &App, shadow: Shadow, ended: &Compared<'_>) -> Result<ReplayReport, String> {
    let given = Some(Assignment {
        revision: shadow.revision,
        arm: Arm::Stable,
    });
    let pipeline = app
        .shelf
        .load(ended.tenant, ended.pipeline, ended.options, given)
        .await;
    let pipeline = pipeline.map_err(|error| error.to_string())?;
    let pipeline = within(app, ended.tenant, pipeline).await;
    let pipeline = pipeline.map_err(|error| error.to_string())?;
    let report = app
        .shelf
        .replays
        .replay(ended.tenant, &ended.job, &pipeline)
        .await;
    let mut report = report.map_err(|error| error.to_string())?;
    report.differences.truncate(DIFFERENCES);
    Ok(report)
}

/// What a shadow would have decided since it began.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShadowView {
    /// The revision.
    revision: u32,
    /// Since when, in milliseconds since 1970.
    since_millis: u64,
    /// Jobs compared: the last 200 at most.
    jobs: u64,
    /// Those in which a decision came out otherwise.
    differing_jobs: u64,
    /// Decisions compared.
    decisions: u64,
    /// Those that came out otherwise.
    differing: u64,
    /// Questions to capabilities that the real revision had not asked, and that therefore had no answer.
    missed: u64,
    /// What the real decisions came to.
    before: EffectView,
    /// What the shadow's would have come to.
    after: EffectView,
    /// The latest of those that came out otherwise.
    examples: Vec<ExampleView>,
    /// Jobs whose decisions could not be had again.
    uncompared: u64,
    /// Why the latest of them could not.
    reason: Option<String>,
}

/// A decision that came out otherwise.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExampleView {
    /// The job.
    #[schema(value_type = String, format = Uuid)]
    job: JobId,
    /// The decision.
    difference: DifferenceView,
}

/// How a rollout's shadow does; `None` if it has none.
pub(super) async fn of(
    book: &dyn ShadowBook,
    tenant: &TenantId,
    pipeline: &str,
    rollout: &Rollout,
) -> Result<Option<ShadowView>, StorageError> {
    let Some(shadow) = rollout.shadow else {
        return Ok(None);
    };
    let runs = book
        .shadow_runs(tenant, pipeline, shadow.revision, shadow.since_millis)
        .await?;
    let showing = ShadowShowing::of(runs);
    let examples = showing.examples.into_iter();
    Ok(Some(ShadowView {
        revision: shadow.revision,
        since_millis: shadow.since_millis,
        jobs: showing.jobs,
        differing_jobs: showing.differing_jobs,
        decisions: showing.decisions,
        differing: showing.differing,
        missed: showing.missed,
        before: showing.before.into(),
        after: showing.after.into(),
        examples: examples
            .map(|(job, difference)| ExampleView {
                job,
                difference: difference.into(),
            })
            .collect(),
        uncompared: showing.uncompared,
        reason: showing.reason,
    }))
}
