//! Components over HTTP: pushed, listed, removed.
//!
//! What comes in is written to a file while it is hashed, looked at by the gate, and only then kept. A tenant has one component
//! looked at at a time: compiling takes what it takes, and whoever pushes a hundred at once waits for their own.

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
use weir_core::component::{ComponentDigest, ComponentRecord};
use weir_core::id::is_name;
use weir_core::manifest::{Capability, ComponentFile, Role};
use weir_core::tenancy::Scope;
use weir_core::{PolicyError, StorageError};

use crate::app::{App, now_millis};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::uploads::Reservation;
use crate::wire::{Params, Route};

/// Bytes a component may have.
const BYTES: u64 = 64 << 20;

/// What a component decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoleName {
    /// How many pages at once.
    Batching,
    /// Where to, and what after a failure.
    Routing,
    /// Where text is cut.
    Chunking,
    /// What the user is told.
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

/// A right that a pipeline can grant to its components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CapabilityName {
    /// Key-value store.
    State,
    /// A closer look at pages.
    Rasterizer,
    /// Models.
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

/// What a component is pushed as.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PushedAs {
    /// What it is called; several may have one name, as versions of a thing do.
    #[param(pattern = "^[a-z0-9_-]{1,64}$")]
    name: String,
}

/// A component.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComponentView {
    /// SHA-256 of its bytes, which names it for good.
    #[schema(value_type = String, pattern = "^sha256:[0-9a-f]{64}$")]
    digest: ComponentDigest,
    /// What it is called.
    name: String,
    /// Its size.
    bytes: u64,
    /// What it can decide.
    #[schema(value_type = Vec<RoleName>)]
    roles: Vec<Role>,
    /// What a pipeline has to grant it.
    #[schema(value_type = Vec<CapabilityName>)]
    capabilities: Vec<Capability>,
    /// When it was pushed, in milliseconds since 1970.
    created_millis: u64,
    /// Public part of the key it was pushed with.
    by: String,
}

impl From<ComponentRecord> for ComponentView {
    fn from(record: ComponentRecord) -> Self {
        Self {
            digest: record.digest,
            name: record.name,
            bytes: record.bytes,
            roles: record.facts.roles,
            capabilities: record.facts.capabilities,
            created_millis: record.created_millis,
            by: record.by,
        }
    }
}

/// A tenant's components.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComponentList {
    /// The newest first.
    components: Vec<ComponentView>,
}

/// Pushes a component.
///
/// The body is the component itself. It is looked at before it is kept: whether it is a component of this contract, what it
/// imports, whether it compiles within the limits, and whether it answers when it is asked once in each role. The same bytes
/// pushed again are answered with 200.
#[utoipa::path(post, path = "/v1/components", tag = "pipelines", params(PushedAs),
    request_body(content_type = "application/octet-stream", description = "the component; `application/wasm` is as good", content = String),
    responses(
        (status = 201, description = "it is kept", body = ComponentView),
        (status = 200, description = "it was here before", body = ComponentView),
        (status = 400, description = "no name, or not one", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "another one is being looked at", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "it cannot be let in, and why", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "a quota is reached", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn push_component(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(pushed): Params<PushedAs>,
    body: HttpBody,
) -> Result<(StatusCode, Json<ComponentView>), Problem> {
    caller.may(Scope::Components)?;
    if !is_name(&pushed.name) {
        return Err(Problem::invalid(
            "name has 1 to 64 characters of a-z, 0-9, '-' and '_'",
        ));
    }
    let turn = app.shelf.pushing.take(caller.id()).ok_or_else(|| {
        Problem::conflict(
            "another component of this tenant is being looked at: push them one after the other",
        )
    })?;
    let arrived = receive(&app, &caller, body).await?;
    let known = app.shelf.book.component(caller.id(), &arrived.digest).await?;
    let status = match known {
        Some(_) => StatusCode::OK,
        None => StatusCode::CREATED,
    };
    let keeping = {
        let app = Arc::clone(&app);
        async move {
            let _turn = turn;
            keep(&app, caller, pushed.name, arrived, known).await
        }
    };
    let record = app.to_the_end(keeping).await?;
    Ok((status, Json(record.into())))
}

async fn keep(
    app: &App,
    caller: Caller,
    name: String,
    arrived: Arrived,
    known: Option<ComponentRecord>,
) -> Result<ComponentRecord, Problem> {
    let shelf = &app.shelf;
    let record = match known {
        Some(known) => ComponentRecord { name, ..known },
        None => {
            let file = ComponentFile {
                name: name.clone(),
                path: arrived.path.clone(),
                digest: arrived.digest.0,
            };
            let facts = shelf.gate.inspect(caller.id(), &file).await.map_err(refused)?;
            shelf
                .store
                .commit(caller.id(), &arrived.path, &arrived.digest)
                .await?;
            ComponentRecord {
                tenant: caller.id().clone(),
                digest: arrived.digest,
                name,
                bytes: arrived.bytes,
                facts,
                created_millis: now_millis(),
                by: caller.key,
            }
        }
    };
    if let Err(error) = shelf.book.put_component(&record).await {
        // The tenant was removed meanwhile: the next one of its name does not get the file.
        if shelf
            .book
            .component(&record.tenant, &record.digest)
            .await?
            .is_none()
        {
            shelf.store.remove(&record.tenant, &record.digest).await?;
        }
        return Err(match error {
            StorageError::Missing { .. } => Problem::suspended("the tenant has been removed"),
            error => error.into(),
        });
    }
    Ok(record)
}

/// What is wrong with a component is its owner's to mend, but for a host without room.
pub(super) fn refused(error: PolicyError) -> Problem {
    match error {
        PolicyError::Exhausted { .. } => Problem::overloaded(error.to_string()),
        _ => Problem::unprocessable(error.to_string()),
    }
}

/// A component that has come in and is not kept yet. Its file is gone when this is dropped.
struct Arrived {
    path: PathBuf,
    digest: ComponentDigest,
    bytes: u64,
    /// Of its bytes, given back after the file is gone or kept.
    reservation: Reservation,
}

impl Drop for Arrived {
    fn drop(&mut self) {
        // It has been kept, or the next start removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn receive(app: &Arc<App>, caller: &Caller, body: HttpBody) -> Result<Arrived, Problem> {
    let mut arrived = Arrived {
        reservation: Reservation::new(Arc::clone(app), caller.tenant.clone()),
        path: app.shelf.store.unfinished(),
        digest: ComponentDigest([0; 32]),
        bytes: 0,
    };
    let io = |error: std::io::Error| StorageError::io("a component that comes in", &error);
    let mut file = File::create_new(&arrived.path).await.map_err(io)?;
    let (mut hash, mut body) = (Sha256::new(), body.into_data_stream());
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|e| Problem::incomplete(format!("the body broke off ({e}): send it again")))?;
        arrived.bytes += chunk.len() as u64;
        if arrived.bytes > BYTES {
            return Err(Problem::too_large(format!(
                "a component has at most {BYTES} bytes"
            )));
        }
        hash.update(&chunk);
        arrived.reservation.grow_to(arrived.bytes).await?;
        file.write_all(&chunk).await.map_err(io)?;
        arrived.reservation.count_written(chunk.len() as u64);
    }
    file.flush().await.map_err(io)?;
    // Through this descriptor, which is told of every page that could not be written; one opened later may not be.
    file.sync_all().await.map_err(io)?;
    arrived.digest = ComponentDigest(hash.finalize().into());
    Ok(arrived)
}

/// Lists the tenant's components.
#[utoipa::path(get, path = "/v1/components", tag = "pipelines",
    responses(
        (status = 200, description = "the components", body = ComponentList),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn components(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<ComponentList>, Problem> {
    caller.may(Scope::Components)?;
    let components = app.shelf.book.components(caller.id()).await?;
    Ok(Json(ComponentList {
        components: components.into_iter().map(ComponentView::from).collect(),
    }))
}

/// Tells of a component.
#[utoipa::path(get, path = "/v1/components/{digest}", tag = "pipelines",
    params(("digest" = String, Path, description = "the component's digest")),
    responses(
        (status = 200, description = "the component", body = ComponentView),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such component", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn component(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(digest): Route<ComponentDigest>,
) -> Result<Json<ComponentView>, Problem> {
    caller.may(Scope::Components)?;
    let record = app.shelf.book.component(caller.id(), &digest).await?;
    record
        .map(|record| Json(record.into()))
        .ok_or_else(|| Problem::not_found("there is no component of this digest"))
}

/// Removes a component that no revision names.
#[utoipa::path(delete, path = "/v1/components/{digest}", tag = "pipelines",
    params(("digest" = String, Path, description = "the component's digest")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such component", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "a revision names it", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn remove_component(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(digest): Route<ComponentDigest>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Components)?;
    match app.shelf.book.forget_component(caller.id(), &digest).await? {
        Ok(true) => {
            app.shelf.store.remove(caller.id(), &digest).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        Ok(false) => Err(Problem::not_found("there is no component of this digest")),
        Err((pipeline, number)) => Err(Problem::conflict(format!(
            "revision {number} of pipeline '{pipeline}' names it, and revisions stay"
        ))),
    }
}
