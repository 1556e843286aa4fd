//! Lookups and changes of tenants and API keys.

use async_trait::async_trait;
use weir_core::tenancy::{ApiKeyRecord, Tenant, TenantStore, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::locked_tenants::LockedTenants;
use super::sql_ledger::SqlLedger;
use super::tenants;

/// Rows of a table that one transaction removes. Other transactions run between two.
const ROWS_PER_TRANSACTION: u32 = 2_000;

#[async_trait]
impl TenantStore for SqlLedger {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_write_transaction(LockedTenants::one(&tenant.id), move |t| {
                tenants::create_tenant(t, &tenant)
            })
            .await
    }

    async fn update_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError> {
        let (id, change) = (id.clone(), change.clone());
        self.database
            .run_write_transaction(LockedTenants::one(&id), move |t| {
                tenants::update_tenant(t, &id, &change)
            })
            .await
    }

    async fn find_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError> {
        let id = id.clone();
        self.database
            .run_tenant_query(move |c| tenants::find_tenant(c, &id))
            .await
    }

    async fn list_tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        self.database.run_tenant_query(tenants::list_tenants).await
    }

    async fn suspend_tenant_and_remove_keys(&self, id: &TenantId) -> Result<bool, StorageError> {
        let tenant = id.clone();
        self.database
            .run_write_transaction(LockedTenants::one(id), move |t| {
                tenants::suspend_tenant_and_delete_keys(t, &tenant)
            })
            .await
    }

    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError> {
        self.suspend_tenant_and_remove_keys(id).await?;
        loop {
            let tenant = id.clone();
            let more = self
                .database
                .run_write_transaction(LockedTenants::one(id), move |t| {
                    tenants::delete_tenant_row_batch(t, &tenant, ROWS_PER_TRANSACTION)
                });
            if !more.await? {
                break;
            }
        }
        let tenant = id.clone();
        let known = self
            .database
            .run_write_transaction(LockedTenants::one(id), move |t| {
                tenants::delete_remaining_tenant_rows(t, &tenant)
            })
            .await?;
        self.database.overwrite_removed_rows().await?;
        Ok(known)
    }

    async fn put_api_key(&self, key: &ApiKeyRecord) -> Result<(), StorageError> {
        let key = key.clone();
        self.database
            .run_write_transaction(LockedTenants::one(&key.tenant), move |t| {
                tenants::write_api_key(t, &key)
            })
            .await?
    }

    async fn revoke_api_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError> {
        let id = id.to_owned();
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| {
                tenants::revoke_api_key(t, &id, now_millis)
            })
            .await
    }

    async fn replace_api_key(
        &self,
        old: &str,
        fresh: &ApiKeyRecord,
        now_millis: u64,
    ) -> Result<bool, StorageError> {
        let (old, fresh) = (old.to_owned(), fresh.clone());
        self.database
            .run_write_transaction(LockedTenants::one(&fresh.tenant), move |t| {
                tenants::replace_api_key(t, &old, &fresh, now_millis)
            })
            .await?
    }

    async fn find_api_key_by_id(&self, id: &str) -> Result<Option<ApiKeyRecord>, StorageError> {
        let id = id.to_owned();
        self.database
            .run_tenant_query(move |c| tenants::find_api_key(c, &id))
            .await
    }

    async fn find_api_key_with_tenant(
        &self,
        id: &str,
    ) -> Result<Option<(ApiKeyRecord, Tenant)>, StorageError> {
        let id = id.to_owned();
        self.database
            .run_tenant_query(move |c| tenants::find_api_key_with_tenant(c, &id))
            .await
    }

    async fn list_api_keys(&self, tenant: &TenantId) -> Result<Vec<ApiKeyRecord>, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_tenant_query(move |c| tenants::list_api_keys(c, &tenant))
            .await
    }
}
