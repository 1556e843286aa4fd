//! The ledger: jobs, documents, pages, events, tenants and everything else that has rows, in SQLite or PostgreSQL.
//!
//! The functions that read and write rows exist once, over [`SqlConnection`]. [`sqlite`] and [`postgres`] open the database and run
//! these functions, in transactions if they change rows.

mod claim_rows;
mod column_values;
mod component_log;
mod component_state;
mod document_removals;
mod job_and_document_rows;
mod job_claims;
mod job_requests;
mod ledger_database;
mod ledger_name;
mod ledger_tables;
mod link_key;
mod locked_tenants;
mod node_rows;
mod page_rows;
mod pipelines;
mod postgres;
mod provider_calls;
mod retention;
mod shadow_runs;
mod sql_connection;
mod sql_error;
mod sql_ledger;
mod sql_values;
pub(crate) mod sqlite;
mod storage_usage;
mod table_copy;
mod table_transfer;
mod tenant_store;
mod tenants;
mod unfinished_copy;
mod usage;

use async_trait::async_trait;
use weir_core::component_log::NumberedComponentLogRecord;
use weir_core::component_state_limits::{StateChange, StateSizes};
use weir_core::event::{ErrorInfo, Event};
use weir_core::ledger::{DocumentRecord, JobRecord, LedgerEntry, PageRecord};
use weir_core::ports::{ComponentStateStore, Ledger};
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, StorageError, TenantId};

use self::job_and_document_rows::MAX_LISTED_EVENTS;
pub(crate) use self::ledger_database::LedgerDatabase;
pub use self::link_key::LINK_KEY_BYTES;
use self::locked_tenants::LockedTenants;
pub use self::postgres::PostgresConnectionSettings;
use self::sql_connection::{SqlConnection, SqlResult};
pub use self::sql_ledger::SqlLedger;
pub(crate) use self::table_transfer::LedgerTables;

#[async_trait]
impl Ledger for SqlLedger {
    async fn commit_entries(&self, entries: Vec<LedgerEntry>) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        let tenants = LockedTenants::many(entries.iter().map(LedgerEntry::tenant));
        let write_all = move |t: &SqlConnection<'_>| {
            let mut entries = entries.iter();
            entries.try_fold(false, |removed, entry| {
                Ok(write_ledger_entry(t, entry)? || removed)
            })
        };
        if self.database.run_write_transaction(tenants, write_all).await? {
            self.database.schedule_overwriting_of_removed_rows();
        }
        Ok(())
    }

    async fn find_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.database
            .run_query(move |c| job_and_document_rows::find_document(c, &tenant, &document))
            .await
    }

    async fn list_tenant_documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_query(move |c| job_and_document_rows::list_documents(c, &tenant))
            .await
    }

    async fn list_pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let (tenant, document, revision) = (tenant.clone(), *document, revision.copied());
        self.database
            .run_query(move |c| page_rows::list_pages(c, &tenant, &document, revision.as_ref()))
            .await
    }

    async fn find_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        page: PageNumber,
        revision: Option<&RevisionId>,
    ) -> Result<Option<PageRecord>, StorageError> {
        let (tenant, document, revision) = (tenant.clone(), *document, revision.copied());
        self.database
            .run_query(move |c| page_rows::find_page(c, &tenant, &document, page, revision.as_ref()))
            .await
    }

    async fn find_job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.database
            .run_query(move |c| job_and_document_rows::find_job(c, &tenant, &job))
            .await
    }

    async fn list_unfinished_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.database
            .run_query(job_and_document_rows::list_unfinished_jobs)
            .await
    }

    async fn list_job_events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        let (tenant, job, limit) = (tenant.clone(), *job, limit.min(MAX_LISTED_EVENTS));
        self.database
            .run_query(move |c| job_and_document_rows::list_job_events(c, &tenant, &job, after, limit))
            .await
    }

    async fn last_job_event(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Event>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.database
            .run_query(move |c| job_and_document_rows::find_last_job_event(c, &tenant, &job))
            .await
    }

    async fn list_tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError> {
        let (tenant, limit) = (tenant.clone(), limit.min(MAX_LISTED_EVENTS));
        self.database
            .run_query(move |c| job_and_document_rows::list_tenant_events(c, &tenant, after, limit))
            .await
    }

    async fn list_component_log(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<NumberedComponentLogRecord>, StorageError> {
        let (tenant, job, limit) = (tenant.clone(), *job, limit.min(MAX_LISTED_EVENTS));
        self.database
            .run_query(move |c| component_log::list_log_entries(c, &tenant, &job, after, limit))
            .await
    }

    async fn last_tenant_event_position(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_query(move |c| job_and_document_rows::find_last_tenant_event_position(c, &tenant))
            .await
    }

    async fn list_tenant_documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_query(move |c| job_and_document_rows::list_documents_after(c, &tenant, after, limit))
            .await
    }

    async fn list_pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.database
            .run_query(move |c| page_rows::list_pages_after(c, &tenant, &document, after, limit))
            .await
    }

    async fn last_component_log_seq(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.database
            .run_query(move |c| component_log::find_last_log_entry_seq(c, &tenant, &job))
            .await
    }

    async fn erase_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        let known = self
            .database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                document_removals::delete_document_and_redact_jobs(t, &tenant, &document)
            })
            .await?;
        self.database.overwrite_removed_rows().await?;
        Ok(known)
    }
}

/// Writes one entry. Returns whether it removed a secret.
fn write_ledger_entry(transaction: &SqlConnection<'_>, entry: &LedgerEntry) -> SqlResult<bool> {
    let written = match entry {
        LedgerEntry::RequireClaim(claim) => claim_rows::require_claim(transaction, claim),
        LedgerEntry::Job(job) => {
            job_and_document_rows::write_job(transaction, job)?;
            return match job.state.is_terminal() {
                true => job_requests::remove_passwords(transaction, &job.tenant, &job.id),
                false => Ok(false),
            };
        }
        LedgerEntry::Document(document) => job_and_document_rows::write_document(transaction, document),
        LedgerEntry::Page(page) => page_rows::write_page(transaction, page),
        LedgerEntry::Event(tenant, event) => job_and_document_rows::write_event(transaction, tenant, event),
        LedgerEntry::ComponentLog(tenant, entry) => {
            component_log::write_log_entry(transaction, tenant, entry)
        }
    };
    written.map(|()| false)
}

#[async_trait]
impl ComponentStateStore for SqlLedger {
    async fn get_component_state_value(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, ErrorInfo> {
        let (tenant, pipeline, key) = (tenant.clone(), pipeline.to_owned(), key.to_owned());
        self.database
            .run_query(move |c| component_state::get_component_state_value(c, &tenant, &pipeline, &key))
            .await
            .map_err(to_error_info)
    }

    async fn list_component_state_value_sizes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
    ) -> Result<StateSizes, ErrorInfo> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.database
            .run_query(move |c| component_state::list_component_state_value_sizes(c, &tenant, &pipeline))
            .await
            .map_err(to_error_info)
    }

    async fn apply_component_state_changes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorInfo> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                component_state::apply_component_state_changes(t, &tenant, &pipeline, &changes)
            })
            .await
            .map_err(to_error_info)?
    }
}

fn to_error_info(error: StorageError) -> ErrorInfo {
    ErrorInfo {
        kind: error.kind().into(),
        message: error.to_string(),
    }
}
