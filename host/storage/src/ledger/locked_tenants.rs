//! The tenants or the provider whose rows a transaction changes.

use std::collections::BTreeSet;

use weir_core::TenantId;

/// Tenants that no other transaction changes meanwhile, in the order in which every transaction locks them, or a provider whose calls no
/// other transaction admits meanwhile.
pub(super) struct LockedTenants {
    tenants: BTreeSet<TenantId>,
    provider: Option<String>,
}

impl LockedTenants {
    /// For a transaction of one statement, whose rows PostgreSQL locks itself.
    pub(super) const fn none() -> Self {
        Self {
            tenants: BTreeSet::new(),
            provider: None,
        }
    }

    pub(super) fn one(tenant: &TenantId) -> Self {
        Self::many([tenant])
    }

    pub(super) fn many<'a>(tenants: impl IntoIterator<Item = &'a TenantId>) -> Self {
        Self {
            tenants: tenants.into_iter().cloned().collect(),
            provider: None,
        }
    }

    /// No tenant, but the calls to a provider of language models.
    pub(super) fn only_provider(name: &str) -> Self {
        Self {
            provider: Some(name.to_owned()),
            ..Self::none()
        }
    }

    /// Returns the names of the locks on PostgreSQL.
    pub(super) fn to_lock_names(&self) -> Vec<String> {
        let tenants = self.tenants.iter().map(|tenant| format!("tenant {tenant}"));
        tenants
            .chain(self.provider.iter().map(|name| format!("provider {name}")))
            .collect()
    }
}
