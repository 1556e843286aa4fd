//! Administration of tenants: create, change, suspend and remove them. All operations need the scope `admin`, which gives no
//! access to the data of tenants.

mod keys;
mod override_schemas;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_control::{Control, tenant_removal};
use weir_core::TenantId;
use weir_core::clock::unix_time_millis;
use weir_core::retention::RetentionPeriods;
use weir_core::tenancy::{KeyScope, OverridableNumbers, Quotas, Tenant, TenantState, TenantUpdate};

use crate::auth::Caller;
use crate::http_input::{JsonBody, PathParams};
use crate::problem::Problem;

pub(crate) use override_schemas::{QuotaLimits, RetentionDays};

pub(crate) use keys::{
    __path_create_key, __path_get_own_key, __path_list_keys, __path_revoke_key, __path_rotate_key,
    create_key, get_own_key, list_keys, revoke_key, rotate_key,
};

const MAX_WEIGHT: f64 = 1000.0;

/// The state of a tenant.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TenantStateName {
    /// The tenant may use the host.
    Active,
    /// The keys of the tenant are refused and its jobs stay queued.
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

/// A tenant to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// Name of the tenant.
    #[schema(value_type = String, pattern = "^[a-z0-9_-]{1,64}$")]
    id: TenantId,
    /// Relative share of the host's capacity when several tenants compete for it.
    #[serde(default = "default_weight")]
    #[schema(exclusive_minimum = 0, maximum = 1000, default = 1)]
    weight: f64,
    /// Quotas that override those of the host. 0 means no limit.
    #[serde(default)]
    #[schema(value_type = QuotaLimits)]
    quotas: BTreeMap<String, Option<u64>>,
    /// Retention periods in days that override those of the host. 0 means without limit.
    #[serde(default)]
    #[schema(value_type = RetentionDays)]
    retention: BTreeMap<String, Option<u64>>,
}

const fn default_weight() -> f64 {
    1.0
}

/// Changes to a tenant. Omitted fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantChange {
    /// New state of the tenant.
    state: Option<TenantStateName>,
    /// New relative share of the host's capacity when several tenants compete for it.
    #[schema(exclusive_minimum = 0, maximum = 1000)]
    weight: Option<f64>,
    /// Quotas: a limit, 0 for no limit, or null for the limit of the host.
    #[serde(default)]
    #[schema(value_type = QuotaLimits)]
    quotas: BTreeMap<String, Option<u64>>,
    /// Retention periods: days, 0 for no limit, or null for the period of the host.
    #[serde(default)]
    #[schema(value_type = RetentionDays)]
    retention: BTreeMap<String, Option<u64>>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Name of the tenant.
    id: String,
    /// Current state of the tenant.
    #[schema(value_type = TenantStateName)]
    state: TenantState,
    /// Relative share of the host's capacity when several tenants compete for it.
    weight: f64,
    /// Quotas that override those of the host.
    #[schema(value_type = BTreeMap<String, u64>)]
    quotas: Quotas,
    /// Retention periods in days that override those of the host.
    #[schema(value_type = BTreeMap<String, u64>)]
    retention: RetentionPeriods,
    /// Creation time, in milliseconds since 1970.
    created_millis: u64,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            state: tenant.state,
            weight: tenant.weight,
            quotas: tenant.quotas,
            retention: tenant.retention,
            created_millis: tenant.created_millis,
        }
    }
}

/// All tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantList {
    /// Tenants, sorted by name.
    tenants: Vec<TenantView>,
}

/// Create a tenant.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant, responses(
    (status = 201, description = "The tenant is created", body = TenantView, headers(("Location" = String, description = "Path of the tenant"))),
    (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "A tenant with this name exists", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is out of range", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn create_tenant(
    State(control): State<Arc<Control>>,
    caller: Caller,
    JsonBody(new): JsonBody<NewTenant>,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Admin)?;
    let mut tenant = Tenant {
        id: new.id,
        state: TenantState::Active,
        weight: validate_weight(new.weight)?,
        quotas: Quotas::default(),
        retention: RetentionPeriods::default(),
        created_millis: unix_time_millis(),
    };
    apply_overrides(&mut tenant.quotas, new.quotas)?;
    apply_overrides(&mut tenant.retention, new.retention)?;
    if !control.tenant_store.create_tenant(&tenant).await? {
        return Err(Problem::conflict(format!("tenant {} already exists", tenant.id)));
    }
    let location = HeaderValue::from_str(&format!("/v1/tenants/{}", tenant.id))
        .map_err(|e| Problem::internal_error(e.to_string()))?;
    let view = Json(TenantView::from(tenant));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], view).into_response())
}

/// List tenants.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", responses(
    (status = 200, description = "The tenants", body = TenantList),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list_tenants(
    State(control): State<Arc<Control>>,
    caller: Caller,
) -> Result<Json<TenantList>, Problem> {
    caller.require_scope(KeyScope::Admin)?;
    let tenants = control.tenant_store.list_tenants().await?;
    Ok(Json(TenantList {
        tenants: tenants.into_iter().map(TenantView::from).collect(),
    }))
}

/// Get a tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "Name of the tenant")),
    responses(
        (status = 200, description = "The tenant", body = TenantView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The tenant does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_tenant(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(tenant): PathParams<TenantId>,
) -> Result<Json<TenantView>, Problem> {
    caller.require_scope(KeyScope::Admin)?;
    Ok(Json(load_tenant(&control, &tenant).await?.into()))
}

/// Change a tenant.
///
/// While a tenant is suspended, its keys are refused and its queued jobs wait. Running jobs continue. No data is removed.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = TenantChange,
    params(("tenant" = String, Path, description = "Name of the tenant")),
    responses(
        (status = 200, description = "The updated tenant", body = TenantView),
        (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The tenant does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A key cannot suspend its own tenant", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is out of range", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn change_tenant(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(tenant): PathParams<TenantId>,
    JsonBody(change): JsonBody<TenantChange>,
) -> Result<Json<TenantView>, Problem> {
    caller.require_scope(KeyScope::Admin)?;
    load_tenant(&control, &tenant).await?;
    let state = change.state.map(TenantState::from);
    if state == Some(TenantState::Suspended) && tenant == *caller.tenant_id() {
        return Err(Problem::conflict(
            "a key cannot suspend its own tenant, because the key would stop working: use a key of another tenant with the scope admin",
        ));
    }
    let update = TenantUpdate {
        state,
        weight: change.weight.map(validate_weight).transpose()?,
        quotas: apply_overrides(&mut Quotas::default(), change.quotas)?,
        retention: apply_overrides(&mut RetentionPeriods::default(), change.retention)?,
    };
    let record = update_existing_tenant(&control, &tenant, &update).await?;
    control.admission.invalidate_tenant_terms(&tenant);
    Ok(Json(record.into()))
}

/// Remove a tenant and all its data.
///
/// Cancels its jobs, revokes its keys and deletes its documents, page images, passages, components, pipelines, recordings, cached
/// responses of language models, events and usage. This cannot be undone. If the removal is interrupted, the tenant
/// stays suspended and the request can be sent again.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "Name of the tenant")),
    responses(
        (status = 204, description = "The tenant and all its data are removed"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The tenant does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A key cannot remove its own tenant", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Jobs or uploads of the tenant have not ended yet", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn remove_tenant(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(tenant): PathParams<TenantId>,
) -> Result<StatusCode, Problem> {
    caller.require_scope(KeyScope::Admin)?;
    if tenant == *caller.tenant_id() {
        return Err(Problem::conflict(
            "a key cannot remove its own tenant: use `weir tenant delete`",
        ));
    }
    load_tenant(&control, &tenant).await?;
    let task_control = Arc::clone(&control);
    control
        .run_to_completion(async move {
            Ok::<_, Problem>(tenant_removal::remove_tenant(&task_control, &tenant).await?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Loads a tenant. Fails with 404 if it does not exist.
async fn load_tenant(control: &Control, tenant: &TenantId) -> Result<Tenant, Problem> {
    control
        .tenant_store
        .find_tenant(tenant)
        .await?
        .ok_or_else(tenant_not_found)
}

/// Updates a tenant. Fails with 404 if it does not exist.
async fn update_existing_tenant(
    control: &Control,
    tenant: &TenantId,
    update: &TenantUpdate,
) -> Result<Tenant, Problem> {
    let changed = control.tenant_store.update_tenant(tenant, update).await?;
    changed.ok_or_else(tenant_not_found)
}

fn tenant_not_found() -> Problem {
    Problem::not_found("the tenant does not exist")
}

fn validate_weight(weight: f64) -> Result<f64, Problem> {
    if weight > 0.0 && weight <= MAX_WEIGHT {
        Ok(weight)
    } else {
        Err(Problem::unprocessable(format!(
            "weight must be above 0 and at most {MAX_WEIGHT}"
        )))
    }
}

/// Applies numbers of a request, and returns them for an update of the stored tenant.
fn apply_overrides(
    numbers: &mut impl OverridableNumbers,
    changes: BTreeMap<String, Option<u64>>,
) -> Result<Vec<(String, Option<u64>)>, Problem> {
    for (name, value) in &changes {
        numbers
            .set_by_name(name, *value)
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
    }
    Ok(changes.into_iter().collect())
}
