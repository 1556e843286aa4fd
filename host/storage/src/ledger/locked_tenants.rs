//! The tenants whose rows a transaction changes.

use std::collections::BTreeSet;

use weir_core::TenantId;

/// Tenants that no other transaction changes meanwhile, in the order in which every transaction locks them.
pub(super) struct LockedTenants(BTreeSet<TenantId>);

impl LockedTenants {
    /// For a transaction of one statement, whose rows PostgreSQL locks itself.
    pub(super) const fn none() -> Self {
        Self(BTreeSet::new())
    }

    pub(super) fn one(tenant: &TenantId) -> Self {
        Self::many([tenant])
    }

    pub(super) fn many<'a>(tenants: impl IntoIterator<Item = &'a TenantId>) -> Self {
        Self(tenants.into_iter().cloned().collect())
    }

    /// Returns the names of the locks on PostgreSQL.
    pub(super) fn to_lock_names(&self) -> Vec<String> {
        self.0.iter().map(|tenant| format!("tenant {tenant}")).collect()
    }
}
