//! Pipelines and their revisions over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::component::ComponentDigest;
use weir_core::id::is_name;
use weir_core::manifest::{Capability, OnTrap, Role};
use weir_core::revision::{PipelineRecord, Revision};
use weir_core::tenancy::Scope;

use super::components::{CapabilityName, refused};
use super::recipe::{JudgeBody, LimitsBody, NewRevision, OnTrapName, SettingBody, recipe};
use super::rollout::RolloutView;
use crate::app::{App, now_millis};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Body, Params, Route};

/// Most revisions in one answer, and how many unless told.
const MOST: usize = 200;
const USUAL: usize = 50;
/// A revision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionView {
    /// The pipeline.
    pipeline: String,
    /// Its number, from 1.
    number: u32,
    /// Digests of components by role; the host's own decide in the others.
    #[schema(value_type = BTreeMap<String, String>)]
    components: BTreeMap<Role, ComponentDigest>,
    /// Settings that components read.
    settings: BTreeMap<String, SettingBody>,
    /// Rights.
    #[schema(value_type = Vec<CapabilityName>)]
    capabilities: Vec<Capability>,
    /// After a component failed to decide.
    #[schema(value_type = OnTrapName)]
    on_trap: OnTrap,
    /// Limits of calls.
    limits: LimitsBody,
    /// When a canary of this revision is promoted or rolled back.
    judge: JudgeBody,
    /// When it was pushed, in milliseconds since 1970.
    created_millis: u64,
    /// Public part of the key it was pushed with.
    by: String,
}

impl From<Revision> for RevisionView {
    fn from(revision: Revision) -> Self {
        let manifest = revision.recipe.manifest;
        Self {
            pipeline: revision.pipeline,
            number: revision.number,
            components: revision.recipe.components,
            settings: manifest
                .settings
                .into_iter()
                .map(|(k, v)| (k, v.into()))
                .collect(),
            capabilities: manifest.capabilities.grant,
            on_trap: manifest.on_trap,
            limits: manifest.limits.into(),
            judge: manifest.judge.into(),
            created_millis: revision.created_millis,
            by: revision.by,
        }
    }
}

/// A pipeline's revisions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionList {
    /// The newest first.
    revisions: Vec<RevisionView>,
    /// What `before` is to be for the next ones, if there may be more.
    next: Option<u32>,
}

/// A pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PipelineView {
    /// Its name.
    name: String,
    /// Revisions it has.
    revisions: u32,
    /// Which of them new jobs get.
    rollout: RolloutView,
}

impl From<PipelineRecord> for PipelineView {
    fn from(record: PipelineRecord) -> Self {
        Self {
            name: record.name,
            revisions: record.revisions,
            rollout: record.rollout.into(),
        }
    }
}

/// A tenant's pipelines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PipelineList {
    /// By name.
    pipelines: Vec<PipelineView>,
}

/// Which revisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RevisionPage {
    /// Only those before this one.
    #[param(minimum = 1)]
    before: Option<u32>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
}

/// Lists the tenant's pipelines.
#[utoipa::path(get, path = "/v1/pipelines", tag = "pipelines",
    responses(
        (status = 200, description = "the pipelines", body = PipelineList),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn pipelines(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<PipelineList>, Problem> {
    caller.may(Scope::Components)?;
    let pipelines = app.shelf.book.pipelines(caller.id()).await?;
    Ok(Json(PipelineList {
        pipelines: pipelines.into_iter().map(PipelineView::from).collect(),
    }))
}

/// Tells of a pipeline.
#[utoipa::path(get, path = "/v1/pipelines/{name}", tag = "pipelines",
    params(("name" = String, Path, description = "the pipeline's name")),
    responses(
        (status = 200, description = "the pipeline", body = PipelineView),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such pipeline", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn pipeline(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(name): Route<String>,
) -> Result<Json<PipelineView>, Problem> {
    caller.may(Scope::Components)?;
    Ok(Json(known(&app, &caller, &name).await?.into()))
}

/// The tenant's pipeline of this name; a problem if it has none.
pub(super) async fn known(app: &App, caller: &Caller, name: &str) -> Result<PipelineRecord, Problem> {
    let record = app.shelf.book.pipeline(caller.id(), name).await?;
    record.ok_or_else(|| Problem::not_found(format!("there is no pipeline '{name}': push a revision of it")))
}

/// Pushes a revision.
///
/// It gets the next number of the pipeline, and no job runs it before it is activated or made a canary. The components are
/// asked once in each role, with the rights and settings given, before it is kept. The same revision as the newest pushed
/// again is answered with 200.
#[utoipa::path(post, path = "/v1/pipelines/{name}/revisions", tag = "pipelines", request_body = NewRevision,
    params(("name" = String, Path, description = "the pipeline's name", pattern = "^[a-z0-9_-]{1,64}$")),
    responses(
        (status = 201, description = "the revision", body = RevisionView),
        (status = 200, description = "it is the newest already", body = RevisionView),
        (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such component", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "it cannot be used, and why", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn push_revision(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(name): Route<String>,
    Body(new): Body<NewRevision>,
) -> Result<(StatusCode, Json<RevisionView>), Problem> {
    caller.may(Scope::Components)?;
    if !is_name(&name) {
        return Err(Problem::unprocessable(
            "a pipeline's name has 1 to 64 characters of a-z, 0-9, '-' and '_'",
        ));
    }
    let recipe = recipe(&app, &caller, &name, new).await?;
    let built = app.shelf.build(caller.id(), recipe.clone()).await;
    let built = built.map_err(Problem::unprocessable)?;
    app.shelf
        .gate
        .rehearse(caller.id(), &built)
        .await
        .map_err(refused)?;
    let before = app.shelf.book.revisions(caller.id(), &name, None, 1).await?;
    let added = app
        .shelf
        .book
        .add_revision(caller.id(), &name, &recipe, &caller.key, now_millis())
        .await?;
    let revision =
        added.map_err(|digest| Problem::not_found(format!("component {digest} is not here: push it")))?;
    let is_old = before
        .first()
        .is_some_and(|newest| newest.number == revision.number);
    let status = if is_old {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(revision.into())))
}

/// Lists a pipeline's revisions.
#[utoipa::path(get, path = "/v1/pipelines/{name}/revisions", tag = "pipelines",
    params(("name" = String, Path, description = "the pipeline's name"), RevisionPage),
    responses(
        (status = 200, description = "the revisions", body = RevisionList),
        (status = 400, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such pipeline", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn revisions(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(name): Route<String>,
    Params(page): Params<RevisionPage>,
) -> Result<Json<RevisionList>, Problem> {
    caller.may(Scope::Components)?;
    let limit = page.limit.unwrap_or(USUAL);
    let number = 1..=i32::MAX.cast_unsigned();
    if !(1..=MOST).contains(&limit) || page.before.is_some_and(|before| !number.contains(&before)) {
        return Err(Problem::invalid(format!(
            "limit is from 1 to {MOST}, and before is at least 1"
        )));
    }
    known(&app, &caller, &name).await?;
    let revisions = app
        .shelf
        .book
        .revisions(caller.id(), &name, page.before, limit)
        .await?;
    let last = revisions.last().map(|revision| revision.number);
    Ok(Json(RevisionList {
        next: last.filter(|number| revisions.len() == limit && *number > 1),
        revisions: revisions.into_iter().map(RevisionView::from).collect(),
    }))
}

/// Tells of a revision.
#[utoipa::path(get, path = "/v1/pipelines/{name}/revisions/{number}", tag = "pipelines",
    params(
        ("name" = String, Path, description = "the pipeline's name"),
        ("number" = u32, Path, description = "the revision's number", minimum = 1),
    ),
    responses(
        (status = 200, description = "the revision", body = RevisionView),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such revision", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn revision(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route((name, number)): Route<(String, u32)>,
) -> Result<Json<RevisionView>, Problem> {
    caller.may(Scope::Components)?;
    let revision = app.shelf.book.revision(caller.id(), &name, number).await?;
    revision
        .map(|revision| Json(revision.into()))
        .ok_or_else(|| Problem::not_found(format!("pipeline '{name}' has no revision {number}")))
}
