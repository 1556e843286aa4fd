//! Who calls: the key in `Authorization: Bearer weir_<id>_<secret>`.
//!
//! Every refusal looks the same and costs the same, whether the key is unknown, wrong, expired or revoked: whoever guesses
//! learns nothing. The registry is asked each time, so that a revoked key ends with the request in which it was revoked.
//! Whoever is recognized has their request counted, and is refused if there are too many.

mod key;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request};
use weir_core::TenantId;
use weir_core::tenancy::{Scope, Tenant, TenantState};

use crate::app::{App, now_millis};
use crate::connections::authenticate;
use crate::problem::Problem;

pub(crate) use key::fill as random;
pub use key::{FreshKey, MintError, mint};
use key::{Presented, matches};

/// Who calls. A handler that takes it is only reached with a key that counts.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The tenant the key speaks for.
    pub(crate) tenant: Tenant,
    /// The key's public part.
    pub(crate) key: String,
    scopes: Vec<Scope>,
}

impl Caller {
    /// The tenant's name.
    pub(crate) const fn id(&self) -> &TenantId {
        &self.tenant.id
    }

    /// Whether the key has this scope.
    pub(crate) fn may(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(Problem::forbidden(format!(
                "this needs a key with the scope {scope}"
            )))
        }
    }

    /// Whether the key would still be let in. What lasts longer than a request asks this from time to time; while the
    /// registry cannot be read, the answer is the last one.
    pub(crate) async fn still_counts(&self, app: &App) -> bool {
        let (key, tenant) = tokio::join!(app.registry.key(&self.key), app.registry.tenant(self.id()));
        let (Ok(key), Ok(tenant)) = (key, tenant) else {
            return true;
        };
        key.is_some_and(|key| key::counts(&key, now_millis()))
            && tenant.is_some_and(|tenant| tenant.state == TenantState::Active)
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = identify(app, bearer(&parts.headers)).await?;
        authenticate(parts);
        Ok(caller)
    }
}

/// Whom a key speaks for.
pub(crate) async fn identify(app: &App, key: Option<&str>) -> Result<Caller, Problem> {
    let refused = || {
        Problem::unauthorized(
            "send a valid key as `Authorization: Bearer weir_…`; `weir key create` makes one",
        )
    };
    let presented = key.and_then(Presented::parse).ok_or_else(refused)?;
    let record = app.registry.key(presented.id()).await?;
    let record = matches(&presented, record, now_millis()).ok_or_else(refused)?;
    let tenant = app.registry.tenant(&record.tenant).await?.ok_or_else(refused)?;
    if tenant.state == TenantState::Suspended {
        return Err(Problem::suspended(format!(
            "tenant {} is suspended: ask whoever runs this host",
            tenant.id
        )));
    }
    tracing::Span::current()
        .record("tenant", tenant.id.as_str())
        .record("key", &record.id);
    app.quotas.request(app, &tenant)?;
    Ok(Caller {
        tenant,
        key: record.id,
        scopes: record.scopes,
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
