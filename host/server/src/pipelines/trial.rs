//! Canaries, judged by the jobs of both revisions.
//!
//! Each job that ends and was given a revision writes down what it showed. If its pipeline has a canary then, the canary is
//! judged at once, by the rule of its own manifest. A judgement is a change like any other, made for the version it was come
//! to at: whoever changes the rollout in the meantime is not overruled.

use weir_core::judge::{Evidence, Judgement, Showing, sum};
use weir_core::ledger::JobState;
use weir_core::revision::{JobShowing, PipelineBook};
use weir_core::rollout::{Assignment, Change, Rollout};
use weir_core::{JobId, StorageError, TenantId};
use weir_engine::{DocumentEnd, JobOutcome};

use super::Shelf;
use crate::app::now_millis;

/// A canary beside the stable revision.
pub(super) struct Trial {
    /// What both showed so far.
    pub(super) canary: Showing,
    pub(super) stable: Showing,
    pub(super) judgement: Judgement,
    /// What both had shown by the look that the judgement was come to at.
    by: (Showing, Showing),
    automatic: bool,
}

impl Trial {
    /// What follows, and why.
    pub(super) fn said(&self) -> (&'static str, &str) {
        match &self.judgement {
            Judgement::Wait(reason) => ("wait", reason),
            Judgement::Promote(reason) => ("promote", reason),
            Judgement::RollBack(reason) => ("rollback", reason),
        }
    }
}

/// How a rollout's canary does; `None` if it has none.
pub(super) async fn of(
    book: &dyn PipelineBook,
    tenant: &TenantId,
    pipeline: &str,
    rollout: &Rollout,
) -> Result<Option<Trial>, StorageError> {
    let (Some(trial), Some(stable)) = (rollout.canary, rollout.stable) else {
        return Ok(None);
    };
    let Some(revision) = book.revision(tenant, pipeline, trial.revision).await? else {
        return Ok(None);
    };
    let (judge, since) = (revision.recipe.manifest.judge, trial.since_millis);
    let shown =
        async |revision, until, jobs| book.shown(tenant, pipeline, revision, since..=until, jobs).await;
    let most = judge.most_jobs();
    let canary = shown(trial.revision, u64::MAX, most).await?;
    let beside = sum(&shown(stable, u64::MAX, most).await?);
    let (judgement, by) = match judge.look(&canary) {
        Some(look) => {
            let company = shown(stable, look.until_millis(), look.stable_jobs()).await?;
            (look.judge(&company), (look.canary(), sum(&company)))
        }
        None => (judge.too_early(), (sum(&canary), beside)),
    };
    Ok(Some(Trial {
        canary: sum(&canary),
        stable: beside,
        judgement,
        by,
        automatic: judge.automatic,
    }))
}

/// A job that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) job: JobId,
    pub(crate) pipeline: &'a str,
    pub(crate) outcome: &'a JobOutcome,
    /// Milliseconds it took; `None` if it had begun in an earlier process, whose part is not known.
    pub(crate) millis: Option<u64>,
}

/// Writes down what a job showed, and judges a canary by it.
pub(crate) async fn ended(shelf: &Shelf, given: Assignment, ended: Ended<'_>) {
    if let Err(error) = judge(shelf, given, &ended).await {
        tracing::warn!(job = %ended.job, %error, "what the job showed of its revision is not known");
    }
}

async fn judge(shelf: &Shelf, given: Assignment, ended: &Ended<'_>) -> Result<(), StorageError> {
    let (book, tenant, pipeline) = (shelf.book.as_ref(), ended.tenant, ended.pipeline);
    book.show(&JobShowing {
        tenant: tenant.clone(),
        job: ended.job,
        state: ended.outcome.state,
        at_millis: now_millis(),
        showing: showing(ended.outcome, ended.millis),
    })
    .await?;
    let Some(record) = book.pipeline(tenant, pipeline).await? else {
        return Ok(());
    };
    let rollout = record.rollout;
    // A look follows from the canary's jobs.
    if rollout.canary.map(|canary| canary.revision) != Some(given.revision) {
        return Ok(());
    }
    let Some(trial) = of(book, tenant, pipeline, &rollout).await? else {
        return Ok(());
    };
    if !trial.automatic {
        return Ok(());
    }
    let (change, reason) = match trial.judgement {
        Judgement::Wait(_) => return Ok(()),
        Judgement::Promote(reason) => (Change::Promote, reason),
        Judgement::RollBack(reason) => (Change::RollBack, reason),
    };
    let (canary, stable) = trial.by;
    let evidence = Evidence {
        canary,
        stable,
        reason: reason.clone(),
    };
    let changed = book
        .change_rollout(
            tenant,
            pipeline,
            Some(rollout.version),
            &change,
            "judge",
            Some(evidence),
            now_millis(),
        )
        .await?;
    match changed {
        Ok(_) => tracing::info!(%tenant, pipeline, action = change.action(), reason, "a canary was judged"),
        // Somebody was quicker.
        Err(refused) => tracing::debug!(%tenant, pipeline, %refused, "a canary was not judged after all"),
    }
    Ok(())
}

fn showing(outcome: &JobOutcome, millis: Option<u64>) -> Showing {
    let (mut pages, mut failed_pages) = (0, 0);
    for document in &outcome.documents {
        match &document.end {
            DocumentEnd::Done {
                pages: asked,
                skipped,
                failed,
                ..
            } => {
                // What an earlier job had done says nothing about this one.
                pages += u64::from(asked.saturating_sub(*skipped));
                failed_pages += failed.len() as u64;
            }
            DocumentEnd::Failed { done, .. } | DocumentEnd::Cancelled { done } => pages += u64::from(*done),
            DocumentEnd::Suspended { .. } => {}
        }
    }
    let cancelled = outcome.state == JobState::Cancelled;
    Showing {
        jobs: u64::from(!cancelled),
        failed_jobs: u64::from(outcome.state == JobState::Failed),
        // Pages without their time would make it look quick.
        pages: if millis.is_some() && !cancelled { pages } else { 0 },
        failed_pages: if millis.is_some() && !cancelled {
            failed_pages
        } else {
            0
        },
        calls: outcome.policy.calls,
        traps: outcome.policy.traps,
        timeouts: outcome.policy.timeouts,
        millis: millis.filter(|_| !cancelled && pages > 0).unwrap_or(0),
    }
}
