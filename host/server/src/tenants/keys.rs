//! Administration of API keys: create, list, revoke and rotate them.
//!
//! A key with the scope `admin` may manage all keys. Any other key may only revoke or rotate itself, so that the holder of a
//! leaked key can end it at once. For such a key all other keys do not exist.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_control::Control;
use weir_control::api_key::{GeneratedApiKey, generate_api_key, is_api_key_active};
use weir_core::TenantId;
use weir_core::clock::unix_time_millis;
use weir_core::tenancy::{ApiKeyRecord, KeyScope};

use super::load_tenant;
use crate::auth::Caller;
use crate::http_input::{JsonBody, PathParams};
use crate::problem::Problem;

const DAY_MILLIS: u64 = 86_400_000;
const MAX_LABEL_BYTES: usize = 200;
/// Maximum number of active keys of a tenant.
const MAX_ACTIVE_KEYS: usize = 1000;

/// An operation that a key allows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScopeName {
    /// Submit, cancel and retry jobs; delete documents.
    Ingest,
    /// Read jobs, documents, events and usage; search.
    Read,
    /// Push components and change pipelines.
    Components,
    /// Create and change tenants and keys of all tenants.
    Admin,
}

impl From<ScopeName> for KeyScope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Ingest => Self::Ingest,
            ScopeName::Read => Self::Read,
            ScopeName::Components => Self::Components,
            ScopeName::Admin => Self::Admin,
        }
    }
}

/// A key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// Scopes.
    #[schema(min_items = 1, max_items = 4)]
    scopes: Vec<ScopeName>,
    /// Label for people.
    #[serde(default)]
    #[schema(max_length = 200)]
    label: String,
    /// Days until the key expires. Without it the key does not expire.
    #[schema(minimum = 1, maximum = 3650)]
    days: Option<u32>,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// Id: the public part of the key, 12 hexadecimal digits.
    id: String,
    /// Name of the tenant.
    tenant: String,
    /// Scopes.
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<KeyScope>,
    /// Label for people.
    label: String,
    /// Creation time, in milliseconds since 1970.
    created_millis: u64,
    /// Expiry time, in milliseconds since 1970; null if the key does not expire.
    expires_millis: Option<u64>,
    /// Time of the revocation, in milliseconds since 1970; null if the key is not revoked.
    revoked_millis: Option<u64>,
}

impl From<ApiKeyRecord> for KeyView {
    fn from(record: ApiKeyRecord) -> Self {
        Self {
            id: record.id,
            tenant: record.tenant.to_string(),
            scopes: record.scopes,
            label: record.display_name,
            created_millis: record.created_millis,
            expires_millis: record.expires_millis,
            revoked_millis: record.revoked_millis,
        }
    }
}

/// A newly created key.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    /// Description of the key.
    key: KeyView,
    /// The complete key. The host does not store it and does not show it again.
    secret: String,
}

impl From<GeneratedApiKey> for CreatedKey {
    fn from(generated: GeneratedApiKey) -> Self {
        Self {
            key: generated.record.into(),
            secret: generated.full_key,
        }
    }
}

/// The keys of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// Keys, oldest first.
    keys: Vec<KeyView>,
}

/// The key of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnKeyView {
    /// Id: the public part of the key, 12 hexadecimal digits.
    id: String,
    /// Name of its tenant.
    tenant: String,
    /// Scopes.
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<KeyScope>,
}

/// Get the key of the request.
///
/// Any valid key may do this. It shows which tenant and which operations the key is for.
#[utoipa::path(get, path = "/v1/key", tag = "tenants", responses(
    (status = 200, description = "The key", body = OwnKeyView),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The tenant is suspended", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get_own_key(caller: Caller) -> Json<OwnKeyView> {
    Json(OwnKeyView {
        tenant: caller.tenant_id().to_string(),
        scopes: caller.scopes().to_vec(),
        id: caller.key_id,
    })
}

/// Create a key for a tenant.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/keys", tag = "tenants", request_body = NewKey,
    params(("tenant" = String, Path, description = "Name of the tenant")),
    responses(
        (status = 201, description = "The key; its secret is not shown again", body = CreatedKey),
        (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The tenant does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The tenant has too many active keys", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is out of range", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn create_key(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(tenant): PathParams<TenantId>,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Problem> {
    caller.require_scope(KeyScope::Admin)?;
    let wrong = if new.scopes.is_empty() || new.scopes.len() > KeyScope::ALL.len() {
        Some("scopes must contain one to four of ingest, read, components and admin".to_owned())
    } else if new.label.len() > MAX_LABEL_BYTES {
        Some(format!("label must have at most {MAX_LABEL_BYTES} bytes"))
    } else if new.days.is_some_and(|days| !(1..=3650).contains(&days)) {
        Some("days must be from 1 to 3650".to_owned())
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Err(Problem::unprocessable(wrong));
    }
    let _creation_guard = control.key_creation_lock.lock().await;
    load_tenant(&control, &tenant).await?;
    let now = unix_time_millis();
    if control
        .tenant_store
        .list_api_keys(&tenant)
        .await?
        .iter()
        .filter(|key| is_api_key_active(key, now))
        .count()
        >= MAX_ACTIVE_KEYS
    {
        return Err(Problem::conflict(format!(
            "the tenant has the maximum of {MAX_ACTIVE_KEYS} active keys: revoke one first"
        )));
    }
    let expires = new.days.map(|days| now + u64::from(days) * DAY_MILLIS);
    let scopes = new.scopes.into_iter().map(KeyScope::from).collect();
    let key = generate_api_key(&tenant, scopes, &new.label, now, expires)
        .map_err(|error| Problem::internal_error(error.to_string()))?;
    control.tenant_store.put_api_key(&key.record).await?;
    Ok((StatusCode::CREATED, Json(key.into())))
}

/// List the keys of a tenant.
///
/// The list contains revoked and expired keys. It does not contain secrets.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/keys", tag = "tenants",
    params(("tenant" = String, Path, description = "Name of the tenant")),
    responses(
        (status = 200, description = "The keys", body = KeyList),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The tenant does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_keys(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(tenant): PathParams<TenantId>,
) -> Result<Json<KeyList>, Problem> {
    caller.require_scope(KeyScope::Admin)?;
    load_tenant(&control, &tenant).await?;
    let keys = control.tenant_store.list_api_keys(&tenant).await?;
    Ok(Json(KeyList {
        keys: keys.into_iter().map(KeyView::from).collect(),
    }))
}

/// Revoke a key.
///
/// The key is invalid as soon as the response arrives. A key with the scope `admin` may revoke any key, any other key only
/// itself.
#[utoipa::path(delete, path = "/v1/keys/{key}", tag = "tenants",
    params(("key" = String, Path, description = "Id of the key: 12 hexadecimal digits")),
    responses(
        (status = 204, description = "The key is revoked"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The tenant is suspended", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The key does not exist, or the caller may not manage it", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn revoke_key(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(key): PathParams<String>,
) -> Result<StatusCode, Problem> {
    load_manageable_key(&control, &caller, &key).await?;
    control
        .tenant_store
        .revoke_api_key(&key, unix_time_millis())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate a key.
///
/// Creates a key with the same scopes, label and expiry time, and revokes the old key. A key with the scope `admin` may rotate
/// any key, any other key only itself.
#[utoipa::path(post, path = "/v1/keys/{key}/rotate", tag = "tenants",
    params(("key" = String, Path, description = "Id of the key: 12 hexadecimal digits")),
    responses(
        (status = 201, description = "The new key; its secret is not shown again", body = CreatedKey),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The tenant is suspended", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The key does not exist, or the caller may not manage it", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The key is revoked or has expired", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn rotate_key(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(key): PathParams<String>,
) -> Result<(StatusCode, Json<CreatedKey>), Problem> {
    let old = load_manageable_key(&control, &caller, &key).await?;
    let now = unix_time_millis();
    let new_key = generate_api_key(
        &old.tenant,
        old.scopes,
        &old.display_name,
        now,
        old.expires_millis,
    )
    .map_err(|error| Problem::internal_error(error.to_string()))?;
    if !control
        .tenant_store
        .replace_api_key(&key, &new_key.record, now)
        .await?
    {
        return Err(Problem::conflict(
            "the key is revoked or has expired: create a new one",
        ));
    }
    Ok((StatusCode::CREATED, Json(new_key.into())))
}

/// Loads a key that the caller may revoke or rotate. The error is a 404 if there is none.
async fn load_manageable_key(control: &Control, caller: &Caller, key: &str) -> Result<ApiKeyRecord, Problem> {
    let not_found = || Problem::not_found("the key does not exist, or the caller may not manage it");
    if caller.require_scope(KeyScope::Admin).is_err() && caller.key_id != key {
        return Err(not_found());
    }
    control
        .tenant_store
        .find_api_key_by_id(key)
        .await?
        .ok_or_else(not_found)
}
