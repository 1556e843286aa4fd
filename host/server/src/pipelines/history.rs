//! What was done to a pipeline, by whom and when.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::judge::Evidence;
use weir_core::revision::{ChangeRecord, History};
use weir_core::rollout::Change;
use weir_core::tenancy::Scope;

use super::revisions::known;
use super::rollout::{RolloutView, ShowingView};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Params, Route};

/// Most entries in one answer, and how many unless told.
const MOST: usize = 200;
const USUAL: usize = 50;

/// An entry of a pipeline's history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryEntry {
    /// Its place, from 1.
    seq: u64,
    /// When, in milliseconds since 1970.
    at_millis: u64,
    /// Public part of the key of whoever did it; `judge` if a canary was judged.
    by: String,
    /// What was done: `push`, or an action of a rollout.
    action: String,
    /// The revision it was about, if it was about one.
    revision: Option<u32>,
    /// A canary's share.
    percent: Option<u32>,
    /// The rollout before.
    from: Option<RolloutView>,
    /// The rollout after.
    to: Option<RolloutView>,
    /// What a canary was judged by.
    evidence: Option<EvidenceView>,
}

/// What a canary was judged by.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EvidenceView {
    /// What the canary showed up to when it was judged.
    canary: ShowingView,
    /// What the stable revision showed in that time, up to nine jobs for each of the canary.
    stable: ShowingView,
    /// Why it was judged so.
    reason: String,
}

impl From<Evidence> for EvidenceView {
    fn from(evidence: Evidence) -> Self {
        Self {
            canary: evidence.canary.into(),
            stable: evidence.stable.into(),
            reason: evidence.reason,
        }
    }
}

impl From<ChangeRecord> for HistoryEntry {
    fn from(record: ChangeRecord) -> Self {
        let (action, revision, percent, from, to) = match record.what {
            History::Pushed { revision } => ("push", Some(revision), None, None, None),
            History::Changed { change, from, to } => {
                let percent = match change {
                    Change::Canary { percent, .. } => Some(percent),
                    _ => None,
                };
                let (from, to) = (Some(from.into()), Some(to.into()));
                (change.action(), change.revision(), percent, from, to)
            }
        };
        Self {
            seq: record.seq,
            at_millis: record.at_millis,
            by: record.by,
            action: action.to_owned(),
            revision,
            percent,
            from,
            to,
            evidence: record.evidence.map(EvidenceView::from),
        }
    }
}

/// A pipeline's history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryList {
    /// The newest first.
    entries: Vec<HistoryEntry>,
    /// What `before` is to be for the next ones, if there may be more.
    next: Option<u64>,
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryPage {
    /// Only those before this one.
    #[param(minimum = 1)]
    before: Option<u64>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
}

/// Tells what was done to a pipeline, by whom and when.
#[utoipa::path(get, path = "/v1/pipelines/{name}/history", tag = "pipelines",
    params(("name" = String, Path, description = "the pipeline's name"), HistoryPage),
    responses(
        (status = 200, description = "the history", body = HistoryList),
        (status = 400, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such pipeline", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn history(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(name): Route<String>,
    Params(page): Params<HistoryPage>,
) -> Result<Json<HistoryList>, Problem> {
    caller.may(Scope::Components)?;
    let limit = page.limit.unwrap_or(USUAL);
    let place = 1..=i64::MAX.cast_unsigned();
    if !(1..=MOST).contains(&limit) || page.before.is_some_and(|before| !place.contains(&before)) {
        return Err(Problem::invalid(format!(
            "limit is from 1 to {MOST}, and before is at least 1"
        )));
    }
    known(&app, &caller, &name).await?;
    let entries = app
        .shelf
        .book
        .history(caller.id(), &name, page.before, limit)
        .await?;
    let last = entries.last().map(|entry| entry.seq);
    Ok(Json(HistoryList {
        next: last.filter(|seq| entries.len() == limit && *seq > 1),
        entries: entries.into_iter().map(HistoryEntry::from).collect(),
    }))
}
