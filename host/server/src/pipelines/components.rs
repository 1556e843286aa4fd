//! The API for components: push, list, view, remove.

use std::sync::Arc;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::StatusCode;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_control::Control;
use weir_control::pipelines::ComponentPush;
use weir_core::component::{ComponentDigest, ComponentRecord};
use weir_core::id::is_valid_name;
use weir_core::manifest::{Capability, Role};
use weir_core::tenancy::KeyScope;

use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;

/// A role of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoleName {
    /// It decides how many pages form a batch.
    Batching,
    /// It decides how documents and pages are processed, and what happens after a failure.
    Routing,
    /// It decides how text is divided into passages.
    Chunking,
    /// It computes the progress updates for the user.
    Progress,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Batching => Self::Batching,
            RoleName::Routing => Self::Routing,
            RoleName::Chunking => Self::Chunking,
            RoleName::Progress => Self::Progress,
        }
    }
}

/// A capability that a pipeline can grant to its components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CapabilityName {
    /// Access to a key-value store.
    State,
    /// Access to thumbnails, previews and the text of pages.
    Rasterizer,
    /// Access to models.
    Inference,
}

impl From<CapabilityName> for Capability {
    fn from(name: CapabilityName) -> Self {
        match name {
            CapabilityName::State => Self::State,
            CapabilityName::Rasterizer => Self::Rasterizer,
            CapabilityName::Inference => Self::Inference,
        }
    }
}

/// The query parameters of a component push.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PushComponentQuery {
    /// The name of the component. Several components can have the same name, for example as versions.
    #[param(pattern = "^[a-z0-9_-]{1,64}$")]
    name: String,
}

/// A component.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComponentView {
    /// The SHA-256 of its bytes, which identifies it permanently.
    #[schema(value_type = String, pattern = "^sha256:[0-9a-f]{64}$")]
    digest: ComponentDigest,
    /// The name of the component.
    name: String,
    /// Its size in bytes.
    bytes: u64,
    /// The roles that it implements.
    #[schema(value_type = Vec<RoleName>)]
    roles: Vec<Role>,
    /// The capabilities that it imports, which a pipeline has to grant.
    #[schema(value_type = Vec<CapabilityName>)]
    capabilities: Vec<Capability>,
    /// When it was pushed, in milliseconds since 1970.
    created_millis: u64,
    /// The public part of the key with which it was pushed.
    by: String,
}

impl From<ComponentRecord> for ComponentView {
    fn from(record: ComponentRecord) -> Self {
        Self {
            digest: record.digest,
            name: record.name,
            bytes: record.bytes,
            roles: record.interface.roles,
            capabilities: record.interface.capabilities,
            created_millis: record.created_millis,
            by: record.pushed_by_key,
        }
    }
}

/// A tenant's components.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComponentList {
    /// The components, newest first.
    components: Vec<ComponentView>,
}

/// Push a component.
///
/// The body is the component itself. The host validates it before it stores it: the component must implement the contract, import
/// only known capabilities, compile within the limits, and pass a test call in each of its roles. Pushing the same bytes again
/// returns status 200.
#[utoipa::path(post, path = "/v1/components", tag = "pipelines", params(PushComponentQuery),
    request_body(content_type = "application/octet-stream", description = "The component; `application/wasm` is accepted as well", content = String),
    responses(
        (status = 201, description = "The component is stored", body = ComponentView),
        (status = 200, description = "The component already exists", body = ComponentView),
        (status = 400, description = "The name is missing or malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another component of the tenant is being checked", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The component is invalid; `detail` says why", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A quota is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn push_component(
    State(control): State<Arc<Control>>,
    caller: Caller,
    QueryParams(pushed): QueryParams<PushComponentQuery>,
    body: HttpBody,
) -> Result<(StatusCode, Json<ComponentView>), Problem> {
    caller.require_scope(KeyScope::Components)?;
    if !is_valid_name(&pushed.name) {
        return Err(Problem::invalid_request(
            "name must have 1 to 64 characters of a-z, 0-9, '-' and '_'",
        ));
    }
    let mut push = ComponentPush::start_push(&control, &caller.tenant).await?;
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk
            .map_err(|e| Problem::incomplete_body(format!("the body is incomplete ({e}): send it again")))?;
        push.write_bytes(&chunk).await?;
    }
    let (record, was_known) = push
        .validate_and_store(&control, pushed.name, caller.key_id)
        .await?;
    let status = if was_known {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(record.into())))
}

/// List the tenant's components.
#[utoipa::path(get, path = "/v1/components", tag = "pipelines",
    responses(
        (status = 200, description = "The components", body = ComponentList),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_components(
    State(control): State<Arc<Control>>,
    caller: Caller,
) -> Result<Json<ComponentList>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let components = control
        .tenant_pipelines
        .pipeline_store
        .list_components(caller.tenant_id())
        .await?;
    Ok(Json(ComponentList {
        components: components.into_iter().map(ComponentView::from).collect(),
    }))
}

/// Get a component.
#[utoipa::path(get, path = "/v1/components/{digest}", tag = "pipelines",
    params(("digest" = String, Path, description = "Digest of the component")),
    responses(
        (status = 200, description = "The component", body = ComponentView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The component does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_component(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(digest): PathParams<ComponentDigest>,
) -> Result<Json<ComponentView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let record = control
        .tenant_pipelines
        .pipeline_store
        .find_component(caller.tenant_id(), &digest)
        .await?;
    record
        .map(|record| Json(record.into()))
        .ok_or_else(|| Problem::not_found("there is no component with this digest"))
}

/// Remove a component that no revision uses.
#[utoipa::path(delete, path = "/v1/components/{digest}", tag = "pipelines",
    params(("digest" = String, Path, description = "Digest of the component")),
    responses(
        (status = 204, description = "The component is removed"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The component does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A revision uses the component", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn remove_component(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(digest): PathParams<ComponentDigest>,
) -> Result<StatusCode, Problem> {
    caller.require_scope(KeyScope::Components)?;
    match control
        .tenant_pipelines
        .pipeline_store
        .remove_unused_component(caller.tenant_id(), &digest)
        .await?
    {
        Ok(true) => {
            control
                .tenant_pipelines
                .component_store
                .remove_component(caller.tenant_id(), &digest)
                .await?;
            Ok(StatusCode::NO_CONTENT)
        }
        Ok(false) => Err(Problem::not_found("there is no component with this digest")),
        Err((pipeline, number)) => Err(Problem::conflict(format!(
            "revision {number} of pipeline '{pipeline}' uses this component, and revisions are never removed"
        ))),
    }
}
