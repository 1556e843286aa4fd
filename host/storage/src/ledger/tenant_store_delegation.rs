//! [`TenantStore`] for the process that holds the data folder.

use async_trait::async_trait;
use weir_core::tenancy::{ApiKeyRecord, Tenant, TenantStore, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::sqlite_ledger::SqliteLedger;

#[async_trait]
impl TenantStore for SqliteLedger {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError> {
        self.tenant_admin.create_tenant(tenant).await
    }

    async fn update_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError> {
        self.tenant_admin.update_tenant(id, change).await
    }

    async fn find_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError> {
        self.tenant_admin.find_tenant(id).await
    }

    async fn list_tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        self.tenant_admin.list_tenants().await
    }

    async fn suspend_tenant_and_remove_keys(&self, id: &TenantId) -> Result<bool, StorageError> {
        self.tenant_admin.suspend_tenant_and_remove_keys(id).await
    }

    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError> {
        self.tenant_admin.remove_tenant(id).await
    }

    async fn put_api_key(&self, key: &ApiKeyRecord) -> Result<(), StorageError> {
        self.tenant_admin.put_api_key(key).await
    }

    async fn revoke_api_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError> {
        self.tenant_admin.revoke_api_key(id, now_millis).await
    }

    async fn replace_api_key(
        &self,
        old: &str,
        fresh: &ApiKeyRecord,
        now_millis: u64,
    ) -> Result<bool, StorageError> {
        self.tenant_admin.replace_api_key(old, fresh, now_millis).await
    }

    async fn find_api_key_by_id(&self, id: &str) -> Result<Option<ApiKeyRecord>, StorageError> {
        self.tenant_admin.find_api_key_by_id(id).await
    }

    async fn list_api_keys(&self, tenant: &TenantId) -> Result<Vec<ApiKeyRecord>, StorageError> {
        self.tenant_admin.list_api_keys(tenant).await
    }
}
