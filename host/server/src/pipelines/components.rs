//! The API for components: push, list, view, remove.
//!
//! A pushed component is written to a file and hashed while it arrives. It is stored only after it passed validation. Each tenant can
//! have one component in validation at a time, because compiling is expensive: a tenant that pushes many components delays only
//! itself.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::StatusCode;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use utoipa::{IntoParams, ToSchema};
use weir_core::clock::unix_time_millis;
use weir_core::component::{ComponentDigest, ComponentRecord};
use weir_core::id::is_valid_name;
use weir_core::manifest::{Capability, ComponentFile, Role};
use weir_core::tenancy::KeyScope;
use weir_core::{PolicyError, StorageError};

use crate::app::AppState;
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;
use crate::upload_reservations::UploadReservation;

/// The maximum size of a component in bytes.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;

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
    State(app): State<Arc<AppState>>,
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
    let turn = app
        .tenant_pipelines
        .validation_permits
        .try_acquire(caller.tenant_id())
        .ok_or_else(|| {
            Problem::conflict(
                "another component of this tenant is being validated: push components one after the other",
            )
        })?;
    let arrived = receive_component(&app, &caller, body).await?;
    let known = app
        .tenant_pipelines
        .pipeline_store
        .find_component(caller.tenant_id(), &arrived.digest)
        .await?;
    let status = match known {
        Some(_) => StatusCode::OK,
        None => StatusCode::CREATED,
    };
    let keeping = {
        let app = Arc::clone(&app);
        async move {
            let _turn = turn;
            validate_and_store(&app, caller, pushed.name, arrived, known).await
        }
    };
    let record = app.run_to_completion(keeping).await?;
    Ok((status, Json(record.into())))
}

async fn validate_and_store(
    app: &AppState,
    caller: Caller,
    name: String,
    arrived: ReceivedComponent,
    known: Option<ComponentRecord>,
) -> Result<ComponentRecord, Problem> {
    let shelf = &app.tenant_pipelines;
    let record = match known {
        Some(known) => ComponentRecord { name, ..known },
        None => {
            let file = ComponentFile {
                name: name.clone(),
                path: arrived.path.clone(),
                digest: arrived.digest.0,
            };
            let facts = shelf
                .component_validator
                .inspect_component(caller.tenant_id(), &file)
                .await
                .map_err(policy_error_problem)?;
            shelf
                .component_store
                .commit_component(caller.tenant_id(), &arrived.path, &arrived.digest)
                .await?;
            ComponentRecord {
                tenant: caller.tenant_id().clone(),
                digest: arrived.digest,
                name,
                bytes: arrived.bytes,
                interface: facts,
                created_millis: unix_time_millis(),
                pushed_by_key: caller.key_id,
            }
        }
    };
    if let Err(error) = shelf.pipeline_store.put_component(&record).await {
        // The tenant was removed meanwhile. Remove the file, so that a later tenant with the same name does not get it.
        if shelf
            .pipeline_store
            .find_component(&record.tenant, &record.digest)
            .await?
            .is_none()
        {
            shelf
                .component_store
                .remove_component_file(&record.tenant, &record.digest)
                .await?;
        }
        return Err(match error {
            StorageError::NotFound { .. } => Problem::tenant_suspended("the tenant has been removed"),
            error => error.into(),
        });
    }
    Ok(record)
}

/// Converts a policy error into a problem: status 422 if the component is at fault, 503 if the host has no capacity.
pub(super) fn policy_error_problem(error: PolicyError) -> Problem {
    match error {
        PolicyError::NoInstanceAvailable { .. } => Problem::overloaded(error.to_string()),
        _ => Problem::unprocessable(error.to_string()),
    }
}

/// A received component that is not stored yet. Dropping it removes its temporary file.
struct ReceivedComponent {
    path: PathBuf,
    digest: ComponentDigest,
    bytes: u64,
    /// The reservation of its bytes, released after the file is removed or stored.
    reservation: UploadReservation,
}

impl Drop for ReceivedComponent {
    fn drop(&mut self) {
        // It fails if the file was stored. Any other file is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn receive_component(
    app: &Arc<AppState>,
    caller: &Caller,
    body: HttpBody,
) -> Result<ReceivedComponent, Problem> {
    let mut arrived = ReceivedComponent {
        reservation: UploadReservation::new(Arc::clone(app), caller.tenant.clone()),
        path: app.tenant_pipelines.component_store.new_temporary_path(),
        digest: ComponentDigest([0; 32]),
        bytes: 0,
    };
    let io = |error: std::io::Error| StorageError::from_io_error("an uploaded component", &error);
    let mut file = File::create_new(&arrived.path).await.map_err(io)?;
    let (mut hash, mut body) = (Sha256::new(), body.into_data_stream());
    while let Some(chunk) = body.next().await {
        let chunk = chunk
            .map_err(|e| Problem::incomplete_body(format!("the body is incomplete ({e}): send it again")))?;
        arrived.bytes += chunk.len() as u64;
        if arrived.bytes > MAX_COMPONENT_BYTES {
            return Err(Problem::too_large(format!(
                "a component may have at most {MAX_COMPONENT_BYTES} bytes"
            )));
        }
        hash.update(&chunk);
        arrived.reservation.grow_to(arrived.bytes).await?;
        file.write_all(&chunk).await.map_err(io)?;
        arrived.reservation.mark_written(chunk.len() as u64);
    }
    file.flush().await.map_err(io)?;
    // On this descriptor, because it reports every failed write; a descriptor that is opened later may not.
    file.sync_all().await.map_err(io)?;
    arrived.digest = ComponentDigest(hash.finalize().into());
    Ok(arrived)
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
    State(app): State<Arc<AppState>>,
    caller: Caller,
) -> Result<Json<ComponentList>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let components = app
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
    State(app): State<Arc<AppState>>,
    caller: Caller,
    PathParams(digest): PathParams<ComponentDigest>,
) -> Result<Json<ComponentView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let record = app
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
    State(app): State<Arc<AppState>>,
    caller: Caller,
    PathParams(digest): PathParams<ComponentDigest>,
) -> Result<StatusCode, Problem> {
    caller.require_scope(KeyScope::Components)?;
    match app
        .tenant_pipelines
        .pipeline_store
        .remove_unused_component(caller.tenant_id(), &digest)
        .await?
    {
        Ok(true) => {
            app.tenant_pipelines
                .component_store
                .remove_component_file(caller.tenant_id(), &digest)
                .await?;
            Ok(StatusCode::NO_CONTENT)
        }
        Ok(false) => Err(Problem::not_found("there is no component with this digest")),
        Err((pipeline, number)) => Err(Problem::conflict(format!(
            "revision {number} of pipeline '{pipeline}' uses this component, and revisions are never removed"
        ))),
    }
}
