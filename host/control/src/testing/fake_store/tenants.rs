//! The fake store of tenants and keys.

use async_trait::async_trait;
use weir_core::tenancy::{ApiKeyRecord, Tenant, TenantState, TenantStore, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::{FakeStore, StoreTables};

impl StoreTables {
    fn write_key(&mut self, key: &ApiKeyRecord) -> Result<(), StorageError> {
        if !self.tenants.contains_key(&key.tenant) {
            return Err(StorageError::NotFound {
                what: format!("tenant {}", key.tenant),
            });
        }
        let known = self.keys.get(&key.id);
        if known.is_some_and(|known| known.tenant != key.tenant) {
            return Err(StorageError::Failed {
                what: format!("key {}", key.id),
                reason: "another tenant has a key of this id".into(),
            });
        }
        self.keys.insert(key.id.clone(), key.clone());
        Ok(())
    }
}

#[async_trait]
impl TenantStore for FakeStore {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        let fresh = !tables.tenants.contains_key(&tenant.id);
        tables
            .tenants
            .entry(tenant.id.clone())
            .or_insert_with(|| tenant.clone());
        Ok(fresh)
    }

    async fn update_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError> {
        let mut tables = self.0.lock();
        let tenant = tables.tenants.get_mut(id);
        Ok(tenant.map(|tenant| {
            change.apply_to_tenant(tenant);
            tenant.clone()
        }))
    }

    async fn find_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError> {
        Ok(self.0.lock().tenants.get(id).cloned())
    }

    async fn list_tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        Ok(self.0.lock().tenants.values().cloned().collect())
    }

    async fn suspend_tenant_and_remove_keys(&self, id: &TenantId) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        tables.keys.retain(|_, key| key.tenant != *id);
        let tenant = tables.tenants.get_mut(id);
        Ok(tenant
            .map(|tenant| tenant.state = TenantState::Suspended)
            .is_some())
    }

    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        tables.keys.retain(|_, key| key.tenant != *id);
        tables.jobs.retain(|job| job.tenant != *id);
        tables
            .job_requests
            .retain(|job_request| job_request.tenant != *id);
        tables.documents.retain(|document| document.tenant != *id);
        tables.pages.retain(|(tenant, ..), _| tenant != id);
        tables.events.retain(|(tenant, _)| tenant != id);
        tables.component_log.retain(|(tenant, ..), _| tenant != id);
        tables.webhooks.retain(|(tenant, _), _| tenant != id);
        tables.idempotency_keys.retain(|(tenant, _), _| tenant != id);
        tables.usage.retain(|(tenant, _), _| tenant != id);
        tables.stored_bytes.remove(id);
        tables.removals.retain(|(tenant, _)| tenant != id);
        tables
            .jobs_with_erased_document
            .retain(|(tenant, _)| tenant != id);
        let known = tables.tenants.remove(id).is_some();
        drop(tables);
        self.lock_pipelines().remove_tenant(id);
        Ok(known)
    }

    async fn put_api_key(&self, key: &ApiKeyRecord) -> Result<(), StorageError> {
        self.0.lock().write_key(key)
    }

    async fn revoke_api_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        let key = tables.keys.get_mut(id);
        Ok(key
            .map(|key| key.revoked_millis.get_or_insert(now_millis))
            .is_some())
    }

    async fn replace_api_key(
        &self,
        old: &str,
        replacement: &ApiKeyRecord,
        now_millis: u64,
    ) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        let is_usable = tables.keys.get(old).is_some_and(|key| {
            key.tenant == replacement.tenant
                && key.revoked_millis.is_none()
                && key.expires_millis.is_none_or(|end| now_millis < end)
        });
        if is_usable {
            tables.write_key(replacement)?;
            if let Some(key) = tables.keys.get_mut(old) {
                key.revoked_millis = Some(now_millis);
            }
        }
        Ok(is_usable)
    }

    async fn find_api_key_by_id(&self, id: &str) -> Result<Option<ApiKeyRecord>, StorageError> {
        Ok(self.0.lock().keys.get(id).cloned())
    }

    async fn find_api_key_with_tenant(
        &self,
        id: &str,
    ) -> Result<Option<(ApiKeyRecord, Tenant)>, StorageError> {
        let tables = self.0.lock();
        let key = tables.keys.get(id);
        Ok(key.and_then(|key| Some((key.clone(), tables.tenants.get(&key.tenant)?.clone()))))
    }

    async fn list_api_keys(&self, tenant: &TenantId) -> Result<Vec<ApiKeyRecord>, StorageError> {
        let tables = self.0.lock();
        let of_tenant = tables.keys.values().filter(|k| k.tenant == *tenant);
        let mut keys: Vec<_> = of_tenant.cloned().collect();
        // The sort is stable, and the keys are in the order of their ids.
        keys.sort_by_key(|key| key.created_millis);
        Ok(keys)
    }
}
