//! Keys of tenants: made, listed, revoked, replaced.
//!
//! An admin key may do all of that. Any other key may revoke or replace itself and no other: whoever holds a key that leaked
//! can end it at once, and nobody can end another's. To such a key every other one does not exist.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::TenantId;
use weir_core::tenancy::{KeyRecord, Scope};

use super::known;
use crate::app::{App, now_millis};
use crate::auth::{Caller, FreshKey, mint};
use crate::problem::Problem;
use crate::wire::{Body, Route};

const DAY_MILLIS: u64 = 86_400_000;
/// Longest label.
const LABEL_BYTES: usize = 200;
/// Keys a tenant may have that still count.
const KEYS: usize = 1000;

/// What a key may do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScopeName {
    /// Submit, cancel and retry jobs; delete documents.
    Ingest,
    /// Read jobs, documents, events and usage; search.
    Read,
    /// Push components and change pipelines.
    Components,
    /// Make and change tenants and keys, of every tenant.
    Admin,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Ingest => Self::Ingest,
            ScopeName::Read => Self::Read,
            ScopeName::Components => Self::Components,
            ScopeName::Admin => Self::Admin,
        }
    }
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// What it may do.
    #[schema(min_items = 1, max_items = 4)]
    scopes: Vec<ScopeName>,
    /// What it is called.
    #[serde(default)]
    #[schema(max_length = 200)]
    label: String,
    /// Days until it ends; it does not end by itself if this is not given.
    #[schema(minimum = 1, maximum = 3650)]
    days: Option<u32>,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// Its public part: 12 hexadecimal digits.
    id: String,
    /// Whom it speaks for.
    tenant: String,
    /// What it may do.
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<Scope>,
    /// What it is called.
    label: String,
    /// When it was made, in milliseconds since 1970.
    created_millis: u64,
    /// When it ends, if it does.
    expires_millis: Option<u64>,
    /// Since when it has been revoked, if it has.
    revoked_millis: Option<u64>,
}

impl From<KeyRecord> for KeyView {
    fn from(record: KeyRecord) -> Self {
        Self {
            id: record.id,
            tenant: record.tenant.to_string(),
            scopes: record.scopes,
            label: record.label,
            created_millis: record.created_millis,
            expires_millis: record.expires_millis,
            revoked_millis: record.revoked_millis,
        }
    }
}

/// A key that has just been made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MintedKey {
    /// What is kept of it.
    key: KeyView,
    /// The key itself. It is kept nowhere and not answered again.
    secret: String,
}

impl From<FreshKey> for MintedKey {
    fn from(fresh: FreshKey) -> Self {
        Self {
            key: fresh.record.into(),
            secret: fresh.text,
        }
    }
}

/// A tenant's keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// The oldest first.
    keys: Vec<KeyView>,
}

/// Makes a key for a tenant.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/keys", tag = "tenants", request_body = NewKey,
    params(("tenant" = String, Path, description = "the tenant's name")),
    responses(
        (status = 201, description = "the key, this once", body = MintedKey),
        (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "the tenant has too many keys", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn create_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(tenant): Route<TenantId>,
    Body(new): Body<NewKey>,
) -> Result<(StatusCode, Json<MintedKey>), Problem> {
    caller.may(Scope::Admin)?;
    let wrong = if new.scopes.is_empty() || new.scopes.len() > Scope::ALL.len() {
        Some("scopes names one to four of ingest, read, components and admin".to_owned())
    } else if new.label.len() > LABEL_BYTES {
        Some(format!("label has at most {LABEL_BYTES} bytes"))
    } else if new.days.is_some_and(|days| !(1..=3650).contains(&days)) {
        Some("days is from 1 to 3650".to_owned())
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Err(Problem::unprocessable(wrong));
    }
    let _one = app.registry_turn.lock().await;
    known(&app, &tenant).await?;
    let now = now_millis();
    if app
        .registry
        .keys(&tenant)
        .await?
        .iter()
        .filter(|key| counts(key, now))
        .count()
        >= KEYS
    {
        return Err(Problem::conflict(format!(
            "the tenant has {KEYS} keys: revoke some first"
        )));
    }
    let expires = new.days.map(|days| now + u64::from(days) * DAY_MILLIS);
    let scopes = new.scopes.into_iter().map(Scope::from).collect();
    let key = mint(&tenant, scopes, &new.label, now, expires)
        .map_err(|error| Problem::internal(error.to_string()))?;
    app.registry.put_key(&key.record).await?;
    Ok((StatusCode::CREATED, Json(key.into())))
}

/// A tenant's keys, without their secrets.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/keys", tag = "tenants",
    params(("tenant" = String, Path, description = "the tenant's name")),
    responses(
        (status = 200, description = "the keys", body = KeyList),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn keys(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(tenant): Route<TenantId>,
) -> Result<Json<KeyList>, Problem> {
    caller.may(Scope::Admin)?;
    known(&app, &tenant).await?;
    let keys = app.registry.keys(&tenant).await?;
    Ok(Json(KeyList {
        keys: keys.into_iter().map(KeyView::from).collect(),
    }))
}

/// Revokes a key: it ends with this answer. An admin key may revoke any, another key itself.
#[utoipa::path(delete, path = "/v1/keys/{key}", tag = "tenants",
    params(("key" = String, Path, description = "its public part: 12 hexadecimal digits")),
    responses(
        (status = 204, description = "it is revoked"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "the tenant is suspended", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such key, or not one of yours", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn revoke_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(key): Route<String>,
) -> Result<StatusCode, Problem> {
    own(&app, &caller, &key).await?;
    app.registry.revoke_key(&key, now_millis()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces a key: a new one with the same rights, label and end is made, and the old one ends with this answer. An admin key
/// may replace any, another key itself.
#[utoipa::path(post, path = "/v1/keys/{key}/rotate", tag = "tenants",
    params(("key" = String, Path, description = "its public part: 12 hexadecimal digits")),
    responses(
        (status = 201, description = "the new key, this once", body = MintedKey),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "the tenant is suspended", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such key, or not one of yours", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "it does not count any more", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn rotate_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(key): Route<String>,
) -> Result<(StatusCode, Json<MintedKey>), Problem> {
    let old = own(&app, &caller, &key).await?;
    let now = now_millis();
    let fresh = mint(&old.tenant, old.scopes, &old.label, now, old.expires_millis)
        .map_err(|error| Problem::internal(error.to_string()))?;
    if !app.registry.replace_key(&key, &fresh.record, now).await? {
        return Err(Problem::conflict(
            "the key is revoked or has expired: make a new one",
        ));
    }
    Ok((StatusCode::CREATED, Json(fresh.into())))
}

/// A key that the caller may end.
async fn own(app: &App, caller: &Caller, key: &str) -> Result<KeyRecord, Problem> {
    let foreign = || Problem::not_found("there is no key of this id, or it is not yours to end");
    if caller.may(Scope::Admin).is_err() && caller.key != key {
        return Err(foreign());
    }
    app.registry.key(key).await?.ok_or_else(foreign)
}

fn counts(key: &KeyRecord, now: u64) -> bool {
    key.revoked_millis.is_none() && key.expires_millis.is_none_or(|end| now < end)
}
