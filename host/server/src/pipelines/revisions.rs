//! The API for pipelines and their revisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_control::Control;
use weir_core::component::ComponentDigest;
use weir_core::id::is_valid_name;
use weir_core::manifest::{Capability, ComponentFailurePolicy, Role};
use weir_core::revision::{PipelineRecord, Revision};
use weir_core::tenancy::KeyScope;

use super::components::CapabilityName;
use super::find_pipeline;
use super::revision_body::{
    CanaryAnalysisBody, ComponentFailurePolicyName, LimitsBody, NewRevision, SettingBody,
};
use super::rollout::RolloutView;
use crate::auth::Caller;
use crate::http_input::{JsonBody, PathParams, QueryParams};
use crate::problem::Problem;

/// The maximum and the default number of revisions in one response.
const MAX_LIMIT: usize = 200;
const DEFAULT_LIMIT: usize = 50;

/// A revision of a pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionView {
    /// The name of the pipeline.
    pipeline: String,
    /// The number of the revision, from 1.
    number: u32,
    /// The digests of its components by role. The default components of the host take the remaining roles.
    #[schema(value_type = BTreeMap<String, String>)]
    components: BTreeMap<Role, ComponentDigest>,
    /// The settings that components can read.
    settings: BTreeMap<String, SettingBody>,
    /// The capabilities that the pipeline grants to its components.
    #[schema(value_type = Vec<CapabilityName>)]
    capabilities: Vec<Capability>,
    /// What happens after a call of a component failed.
    #[schema(value_type = ComponentFailurePolicyName)]
    on_component_failure: ComponentFailurePolicy,
    /// The limits of component calls.
    limits: LimitsBody,
    /// The rules of the canary analysis for this revision.
    canary_analysis: CanaryAnalysisBody,
    /// When it was pushed, in milliseconds since 1970.
    created_millis: u64,
    /// The public part of the key with which it was pushed.
    by: String,
}

impl From<Revision> for RevisionView {
    fn from(revision: Revision) -> Self {
        let manifest = revision.spec.manifest;
        Self {
            pipeline: revision.pipeline,
            number: revision.number,
            components: revision.spec.components,
            settings: manifest
                .settings
                .into_iter()
                .map(|(k, v)| (k, v.into()))
                .collect(),
            capabilities: manifest.capabilities.grant,
            on_component_failure: manifest.on_component_failure,
            limits: manifest.limits.into(),
            canary_analysis: manifest.canary_analysis.into(),
            created_millis: revision.created_millis,
            by: revision.pushed_by_key,
        }
    }
}

/// A part of the revisions of a pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionList {
    /// The revisions, newest first.
    revisions: Vec<RevisionView>,
    /// The value of `before` for the next revisions; null if there are none.
    next: Option<u32>,
}

/// A pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PipelineView {
    /// The name of the pipeline.
    name: String,
    /// The number of its revisions.
    revisions: u32,
    /// Which revisions new jobs get.
    rollout: RolloutView,
}

impl From<PipelineRecord> for PipelineView {
    fn from(record: PipelineRecord) -> Self {
        Self {
            name: record.name,
            revisions: record.revision_count,
            rollout: record.rollout.into(),
        }
    }
}

/// A tenant's pipelines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PipelineList {
    /// The pipelines, sorted by name.
    pipelines: Vec<PipelineView>,
}

/// The query parameters of the list of revisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RevisionListQuery {
    /// Return only revisions before this one.
    #[param(minimum = 1)]
    before: Option<u32>,
    /// The maximum number of revisions.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
}

/// List the tenant's pipelines.
#[utoipa::path(get, path = "/v1/pipelines", tag = "pipelines",
    responses(
        (status = 200, description = "The pipelines", body = PipelineList),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_pipelines(
    State(control): State<Arc<Control>>,
    caller: Caller,
) -> Result<Json<PipelineList>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let pipelines = control
        .tenant_pipelines
        .pipeline_store
        .list_pipelines(caller.tenant_id())
        .await?;
    Ok(Json(PipelineList {
        pipelines: pipelines.into_iter().map(PipelineView::from).collect(),
    }))
}

/// Get a pipeline.
#[utoipa::path(get, path = "/v1/pipelines/{name}", tag = "pipelines",
    params(("name" = String, Path, description = "Name of the pipeline")),
    responses(
        (status = 200, description = "The pipeline", body = PipelineView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The pipeline does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_pipeline(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
) -> Result<Json<PipelineView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    Ok(Json(find_pipeline(&control, &caller, &name).await?.into()))
}

/// Push a revision.
///
/// The revision gets the next number of the pipeline. No job runs it before it is activated or becomes a canary. Before the host
/// stores it, the components have to pass a test call in each role, with the given capabilities and settings. Pushing a revision that
/// equals the newest one returns status 200.
#[utoipa::path(post, path = "/v1/pipelines/{name}/revisions", tag = "pipelines", request_body = NewRevision,
    params(("name" = String, Path, description = "Name of the pipeline", pattern = "^[a-z0-9_-]{1,64}$")),
    responses(
        (status = 201, description = "The revision", body = RevisionView),
        (status = 200, description = "The newest revision is the same", body = RevisionView),
        (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The component does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The revision is invalid; `detail` says why", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn push_revision(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
    JsonBody(new): JsonBody<NewRevision>,
) -> Result<(StatusCode, Json<RevisionView>), Problem> {
    caller.require_scope(KeyScope::Components)?;
    if !is_valid_name(&name) {
        return Err(Problem::unprocessable(
            "the name of a pipeline must have 1 to 64 characters of a-z, 0-9, '-' and '_'",
        ));
    }
    let (manifest, components) = new.into_manifest_and_component_refs(&name)?;
    let pushed = weir_control::pipelines::push_revision(
        &control,
        caller.tenant_id(),
        &caller.key_id,
        manifest,
        components,
    );
    let (revision, is_old) = pushed.await?;
    let status = if is_old {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(revision.into())))
}

/// List the revisions of a pipeline.
#[utoipa::path(get, path = "/v1/pipelines/{name}/revisions", tag = "pipelines",
    params(("name" = String, Path, description = "Name of the pipeline"), RevisionListQuery),
    responses(
        (status = 200, description = "The revisions", body = RevisionList),
        (status = 400, description = "A parameter is out of range", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The pipeline does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_revisions(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
    QueryParams(query): QueryParams<RevisionListQuery>,
) -> Result<Json<RevisionList>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let valid_numbers = 1..=i32::MAX.cast_unsigned();
    if !(1..=MAX_LIMIT).contains(&limit)
        || query
            .before
            .is_some_and(|before| !valid_numbers.contains(&before))
    {
        return Err(Problem::invalid_request(format!(
            "limit must be from 1 to {MAX_LIMIT}, and before must be at least 1"
        )));
    }
    find_pipeline(&control, &caller, &name).await?;
    let revisions = control
        .tenant_pipelines
        .pipeline_store
        .list_revisions(caller.tenant_id(), &name, query.before, limit)
        .await?;
    let last = revisions.last().map(|revision| revision.number);
    Ok(Json(RevisionList {
        next: last.filter(|number| revisions.len() == limit && *number > 1),
        revisions: revisions.into_iter().map(RevisionView::from).collect(),
    }))
}

/// Get a revision.
#[utoipa::path(get, path = "/v1/pipelines/{name}/revisions/{number}", tag = "pipelines",
    params(
        ("name" = String, Path, description = "Name of the pipeline"),
        ("number" = u32, Path, description = "Number of the revision", minimum = 1),
    ),
    responses(
        (status = 200, description = "The revision", body = RevisionView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The revision does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_revision(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams((name, number)): PathParams<(String, u32)>,
) -> Result<Json<RevisionView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let revision = control
        .tenant_pipelines
        .pipeline_store
        .find_revision(caller.tenant_id(), &name, number)
        .await?;
    revision
        .map(|revision| Json(revision.into()))
        .ok_or_else(|| Problem::not_found(format!("pipeline '{name}' has no revision {number}")))
}
