//! Tenants, for whoever runs the host: made, changed, suspended, removed. All of it needs the scope `admin`, which gives no
//! access to what tenants keep.

mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::TenantId;
use weir_core::tenancy::{Quotas, Scope, Tenant, TenantState, TenantUpdate};

use crate::app::{App, now_millis};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Body, Route};

pub(crate) use keys::{
    __path_create_key, __path_keys, __path_revoke_key, __path_rotate_key, create_key, keys, revoke_key,
    rotate_key,
};

/// How long a tenant's jobs and uploads have to end when it is removed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest weight.
const HEAVIEST: f64 = 1000.0;

/// Whether a tenant may use the host.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TenantStateName {
    /// It may.
    Active,
    /// Its keys are refused and its jobs wait.
    Suspended,
}

impl From<TenantStateName> for TenantState {
    fn from(name: TenantStateName) -> Self {
        match name {
            TenantStateName::Active => Self::Active,
            TenantStateName::Suspended => Self::Suspended,
        }
    }
}

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// Its name.
    #[schema(value_type = String, pattern = "^[a-z0-9_-]{1,64}$")]
    id: TenantId,
    /// Its share of a busy host, relative to the others.
    #[serde(default = "one")]
    #[schema(exclusive_minimum = 0, maximum = 1000, default = 1)]
    weight: f64,
    /// Quotas that differ from the host's; 0 is no limit.
    #[serde(default)]
    #[schema(value_type = QuotaLimits)]
    quotas: BTreeMap<String, Option<u64>>,
}

const fn one() -> f64 {
    1.0
}

/// Limits by the names of quotas.
#[derive(ToSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // only its description is used
pub(crate) struct QuotaLimits {
    /// Jobs in work at one time.
    concurrent_jobs: Option<u64>,
    /// Jobs waiting.
    queued_jobs: Option<u64>,
    /// HTTP requests a second, on average.
    requests_per_second: Option<u64>,
    /// Bytes of one submission.
    upload_bytes: Option<u64>,
    /// Pages a day (UTC).
    pages_per_day: Option<u64>,
    /// Bytes of documents and page images kept.
    stored_bytes: Option<u64>,
    /// Milliseconds of models a day (UTC).
    inference_millis_per_day: Option<u64>,
    /// Milliseconds of components' CPU a day (UTC).
    guest_millis_per_day: Option<u64>,
    /// Bytes of memory of one component's instance.
    guest_memory_bytes: Option<u64>,
}

/// What is to be different of a tenant; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantChange {
    /// Whether it may use the host.
    state: Option<TenantStateName>,
    /// Its share of a busy host.
    #[schema(exclusive_minimum = 0, maximum = 1000)]
    weight: Option<f64>,
    /// Quotas: a limit, 0 for none, or null for the host's.
    #[serde(default)]
    #[schema(value_type = QuotaLimits)]
    quotas: BTreeMap<String, Option<u64>>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Its name.
    id: String,
    /// Whether it may use the host.
    #[schema(value_type = TenantStateName)]
    state: TenantState,
    /// Its share of a busy host, relative to the others.
    weight: f64,
    /// Its quotas that differ from the host's.
    #[schema(value_type = BTreeMap<String, u64>)]
    quotas: Quotas,
    /// When it was made, in milliseconds since 1970.
    created_millis: u64,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            state: tenant.state,
            weight: tenant.weight,
            quotas: tenant.quotas,
            created_millis: tenant.created_millis,
        }
    }
}

/// All tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantList {
    /// By name.
    tenants: Vec<TenantView>,
}

/// Makes a tenant.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant, responses(
    (status = 201, description = "it is made", body = TenantView, headers(("Location" = String, description = "path of the tenant"))),
    (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "there is one of this name", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn create_tenant(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<NewTenant>,
) -> Result<Response, Problem> {
    caller.may(Scope::Admin)?;
    let mut tenant = Tenant {
        id: new.id,
        state: TenantState::Active,
        weight: weight(new.weight)?,
        quotas: Quotas::default(),
        created_millis: now_millis(),
    };
    for (name, limit) in new.quotas {
        *quota(&mut tenant.quotas, &name)? = within(limit)?;
    }
    if !app.registry.create_tenant(&tenant).await? {
        return Err(Problem::conflict(format!("tenant {} exists already", tenant.id)));
    }
    let location = HeaderValue::from_str(&format!("/v1/tenants/{}", tenant.id))
        .map_err(|e| Problem::internal(e.to_string()))?;
    let view = Json(TenantView::from(tenant));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], view).into_response())
}

/// All tenants.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", responses(
    (status = 200, description = "the tenants", body = TenantList),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn tenants(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<TenantList>, Problem> {
    caller.may(Scope::Admin)?;
    let tenants = app.registry.tenants().await?;
    Ok(Json(TenantList {
        tenants: tenants.into_iter().map(TenantView::from).collect(),
    }))
}

/// A tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "its name")),
    responses(
        (status = 200, description = "the tenant", body = TenantView),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn tenant(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(tenant): Route<TenantId>,
) -> Result<Json<TenantView>, Problem> {
    caller.may(Scope::Admin)?;
    Ok(Json(known(&app, &tenant).await?.into()))
}

/// Changes a tenant.
///
/// A suspended tenant's keys are refused and its jobs wait; nothing of it is lost. Jobs in work go on to their end.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = TenantChange,
    params(("tenant" = String, Path, description = "its name")),
    responses(
        (status = 200, description = "the tenant as it is now", body = TenantView),
        (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "a key cannot suspend its own tenant", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn change_tenant(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(tenant): Route<TenantId>,
    Body(change): Body<TenantChange>,
) -> Result<Json<TenantView>, Problem> {
    caller.may(Scope::Admin)?;
    known(&app, &tenant).await?;
    let state = change.state.map(TenantState::from);
    if state == Some(TenantState::Suspended) && tenant == *caller.id() {
        return Err(Problem::conflict(
            "a key cannot suspend its own tenant: nobody could undo it with the key",
        ));
    }
    let mut quotas = Vec::with_capacity(change.quotas.len());
    for (name, limit) in change.quotas {
        quota(&mut Quotas::default(), &name)?;
        quotas.push((name, within(limit)?));
    }
    let update = TenantUpdate {
        state,
        weight: change.weight.map(weight).transpose()?,
        quotas,
    };
    let record = update_tenant(&app, &tenant, &update).await?;
    app.admission.reconsider(&tenant);
    Ok(Json(record.into()))
}

/// Removes a tenant with everything it has.
///
/// Its jobs are cancelled, its keys end, its documents, page images, passages, events and usage are removed. It cannot be undone.
/// Cut short, it leaves the tenant suspended, and can be sent again.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "its name")),
    responses(
        (status = 204, description = "nothing of it is left"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "a key cannot remove its own tenant", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "its jobs have not ended yet", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn remove_tenant(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(tenant): Route<TenantId>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Admin)?;
    if tenant == *caller.id() {
        return Err(Problem::conflict(
            "a key cannot remove its own tenant: use `weir tenant delete`",
        ));
    }
    known(&app, &tenant).await?;
    let ours = Arc::clone(&app);
    app.to_the_end(async move { remove(&ours, &tenant).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(app: &Arc<App>, tenant: &TenantId) -> Result<(), Problem> {
    let suspend = TenantUpdate {
        state: Some(TenantState::Suspended),
        ..TenantUpdate::default()
    };
    update_tenant(app, tenant, &suspend).await?;
    let leaving = tokio::time::timeout(PATIENCE, app.admission.leave(tenant)).await;
    let _leaving = leaving.map_err(|_late| {
        Problem::stopping("jobs or uploads of the tenant have not ended yet: send this again").after(PATIENCE)
    })?;
    // A component that is pushed meanwhile is refused from here on, and its file is removed by who pushes it.
    app.registry.lock_out(tenant).await?;
    let ports = app.engine.ports();
    // The ledger's part is last: cut short before, the tenant is still listed and the rest can be removed.
    ports.vectors.clear(tenant).await?;
    ports.vectors.flush().await?;
    ports.blobs.delete(tenant, "").await?;
    app.originals.clear(tenant).await?;
    app.shelf.store.clear(tenant).await?;
    app.shelf.replays.clear_recordings(tenant).await?;
    if let Some(model) = &ports.language_model {
        model.forget(tenant).await?;
    }
    app.registry.remove_tenant(tenant).await?;
    app.metering.forget(tenant);
    Ok(())
}

/// A tenant that is there.
async fn known(app: &App, tenant: &TenantId) -> Result<Tenant, Problem> {
    app.registry.tenant(tenant).await?.ok_or_else(unknown)
}

/// Changes a tenant that is there.
async fn update_tenant(app: &App, tenant: &TenantId, update: &TenantUpdate) -> Result<Tenant, Problem> {
    let changed = app.registry.change_tenant(tenant, update).await?;
    changed.ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::not_found("there is no tenant of this name")
}

fn weight(weight: f64) -> Result<f64, Problem> {
    if weight > 0.0 && weight <= HEAVIEST {
        Ok(weight)
    } else {
        Err(Problem::unprocessable(format!(
            "weight is above 0 and at most {HEAVIEST}"
        )))
    }
}

/// A limit that every client can read: JSON's numbers are often signed ones of 64 bits.
fn within(limit: Option<u64>) -> Result<Option<u64>, Problem> {
    if limit.is_some_and(|limit| i64::try_from(limit).is_err()) {
        return Err(Problem::unprocessable(format!(
            "a limit is at most {}: 0 is none",
            i64::MAX
        )));
    }
    Ok(limit)
}

fn quota<'a>(quotas: &'a mut Quotas, name: &str) -> Result<&'a mut Option<u64>, Problem> {
    let names = || format!("there is no such quota: there are {}", Quotas::NAMES.join(", "));
    quotas
        .by_name_mut(name)
        .ok_or_else(|| Problem::unprocessable(names()))
}
