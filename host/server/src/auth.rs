//! Authentication by an API key in `Authorization: Bearer weir_<id>_<secret>`.
//!
//! The response and its timing are the same for an unknown, wrong, expired or revoked key, so that an attacker cannot tell
//! them apart. Each request reads the key from the tenant store, so a revocation takes effect at once. Each authenticated
//! request counts against the request rate of its tenant and is refused if the rate is exceeded.

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request};
use weir_control::Control;
use weir_control::api_key::{PresentedKey, is_api_key_active, verify_api_key};
use weir_core::TenantId;
use weir_core::clock::unix_time_millis;
use weir_core::tenancy::{KeyScope, Tenant, TenantState};

use crate::connections::mark_connection_authenticated;
use crate::problem::Problem;
use crate::state::AppState;

/// The authenticated caller of a request. A handler with this extractor runs only if the key is valid.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: Tenant,
    /// Id of the key, which is its public part.
    pub(crate) key_id: String,
    scopes: Vec<KeyScope>,
}

impl Caller {
    pub(crate) const fn tenant_id(&self) -> &TenantId {
        &self.tenant.id
    }

    pub(crate) fn scopes(&self) -> &[KeyScope] {
        &self.scopes
    }

    /// Returns an error if the key does not have this scope.
    pub(crate) fn require_scope(&self, scope: KeyScope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(Problem::forbidden(format!(
                "this needs a key with the scope {scope}"
            )))
        }
    }

    /// Whether the key is still valid and its tenant active. Long-lived streams check this periodically. Returns true if the
    /// tenant store cannot be read.
    pub(crate) async fn is_still_authorized(&self, control: &Control) -> bool {
        match control.tenant_store.find_api_key_with_tenant(&self.key_id).await {
            Ok(Some((key, tenant))) => {
                is_api_key_active(&key, unix_time_millis()) && tenant.state == TenantState::Active
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, app: &AppState) -> Result<Self, Problem> {
        let caller = authenticate_key_and_check_rate(&app.control, bearer_token(&parts.headers)).await?;
        mark_connection_authenticated(parts);
        Ok(caller)
    }
}

/// Authenticates a key and counts the request against the request rate of its tenant.
pub(crate) async fn authenticate_key_and_check_rate(
    control: &Control,
    key: Option<&str>,
) -> Result<Caller, Problem> {
    let refused = || {
        Problem::unauthorized(
            "send a valid key as `Authorization: Bearer weir_…`; `weir key create` makes one",
        )
    };
    let presented = key.and_then(PresentedKey::parse).ok_or_else(refused)?;
    let found = control
        .tenant_store
        .find_api_key_with_tenant(presented.key_id())
        .await?;
    let (record, tenant) = found.unzip();
    let record = verify_api_key(&presented, record, unix_time_millis()).ok_or_else(refused)?;
    let tenant = tenant.ok_or_else(refused)?;
    if tenant.state == TenantState::Suspended {
        return Err(Problem::tenant_suspended(format!(
            "tenant {} is suspended: contact the operator of this host",
            tenant.id
        )));
    }
    tracing::Span::current()
        .record("tenant", tenant.id.as_str())
        .record("key", &record.id);
    control.quota_limiter.check_and_count_request(&tenant).await?;
    Ok(Caller {
        tenant,
        key_id: record.id,
        scopes: record.scopes,
    })
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
