//! The ledger in SQLite: `<data>/ledger.db`.
//!
//! One thread writes over one connection, with one transaction for each group of entries. The file has a write-ahead log, and a
//! commit returns after an fsync, as the port requires. This is why the engine commits in groups. Readers have connections of their
//! own, which do not wait for the writer; another process can read too ([`LedgerReader`]). Another process can also change tenants and
//! API keys ([`TenantAdmin`]).

mod column_values;
mod component_log;
pub(crate) mod database;
mod document_removals;
mod job_requests;
mod pipelines;
mod policy_state;
mod records;
mod shadow_runs;
mod tenant_admin;
mod tenants;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;
use weir_core::component_log::ComponentLogEntry;
use weir_core::component_state::{StateChange, StateSizes};
use weir_core::event::{ErrorInfo, Event};
use weir_core::ledger::{DocumentRecord, JobRecord, LedgerEntry, PageRecord};
use weir_core::ports::{ComponentStateStore, Ledger};
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, StorageError, TenantId};

use self::database::Database;
pub use self::tenant_admin::TenantAdmin;
use crate::data_folder::FolderLock;
use crate::storage_usage::StorageUsage;
use crate::worker_thread::WorkerThread;

/// The name of the ledger in errors.
pub(crate) const LEDGER_NAME: &str = "the ledger";
/// Concurrent reads of one reader. Further reads wait.
const MAX_CONCURRENT_READS: usize = 4;
/// Maximum number of events or log entries that one call returns.
const MAX_LISTED_EVENTS: usize = 10_000;

/// Implements [`Ledger`], [`ComponentStateStore`], [`TenantStore`](weir_core::tenancy::TenantStore),
/// [`JobRequestStore`](weir_core::job_request::JobRequestStore), [`PipelineStore`](weir_core::revision::PipelineStore),
/// [`ShadowStore`](weir_core::shadow::ShadowStore), [`UsageStore`](weir_core::usage::UsageStore) and
/// [`DocumentRemovalStore`](weir_core::document_removal::DocumentRemovalStore) with a SQLite file.
pub struct SqliteLedger {
    writer: Arc<WorkerThread<LedgerWriter>>,
    reader: LedgerReader,
    tenant_admin: TenantAdmin,
    storage_usage: Arc<StorageUsage>,
}

struct LedgerWriter {
    database: Database,
    /// `None` if another process may hold the data folder.
    _lock: Option<Arc<FolderLock>>,
}

impl SqliteLedger {
    /// Opens `<data>/ledger.db` and creates it if it does not exist. Also returns the tenants whose storage usage is exact. Blocks on
    /// the disk.
    pub(crate) fn open(data: &Path, lock: Arc<FolderLock>) -> Result<(Self, Vec<TenantId>), StorageError> {
        let file = ledger_path(data);
        let database = Database::open_or_create(&file)?;
        let kept = database.run_transaction(usage::load_storage_usage)?;
        let exact = kept.iter().filter(|(.., exact)| *exact);
        let exact = exact.map(|(tenant, ..)| tenant.clone()).collect();
        let kept = kept.into_iter().map(|(tenant, bytes, _)| (tenant, bytes));
        let writer = LedgerWriter {
            database,
            _lock: Some(lock),
        };
        let writer = Arc::new(WorkerThread::start("weir-ledger", LEDGER_NAME.into(), writer)?);
        let ledger = Self {
            tenant_admin: TenantAdmin::with_writer(Arc::clone(&writer), LedgerReader::for_file(file.clone())),
            writer,
            reader: LedgerReader::for_file(file),
            storage_usage: Arc::new(StorageUsage::from_saved(kept)),
        };
        Ok((ledger, exact))
    }

    /// The bytes that tenants store. The ledger saves them with its commits.
    pub(crate) const fn storage_usage(&self) -> &Arc<StorageUsage> {
        &self.storage_usage
    }

    /// Returns when all earlier commits are done and the file is closed. Every later commit fails, and so does every later change of a
    /// tenant's stored files.
    pub async fn close(&self) {
        let kept = Arc::clone(&self.storage_usage);
        let last = self.write_transaction(move |t| {
            let mut last = kept.close().into_iter();
            last.try_for_each(|(tenant, bytes, exact)| usage::write_storage_usage(t, &tenant, bytes, exact))
        });
        if let Err(error) = last.await {
            tracing::warn!(%error, "storage usage could not be saved and is counted again at the next start");
        }
        self.writer.close().await;
        self.reader.close_idle_connections();
        self.tenant_admin.close_idle_connections();
    }

    async fn write_transaction<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.writer
            .run(move |writer| writer.database.run_transaction(work))
            .await
    }

    /// Runs `work` in a transaction that also saves the changed storage usage.
    async fn write_with_storage_usage<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let kept = Arc::clone(&self.storage_usage);
        let change = move |writer: &mut LedgerWriter| {
            let unwritten = kept.take_unsaved();
            let written = writer.database.run_transaction(|t| {
                for (tenant, bytes) in &unwritten {
                    usage::write_storage_usage(t, tenant, *bytes, false)?;
                }
                work(t)
            });
            if written.is_err() {
                kept.mark_unsaved(&unwritten);
            }
            written
        };
        self.writer.run(change).await
    }
}

/// Reads a ledger. Another process may write to it meanwhile.
pub struct LedgerReader {
    file: PathBuf,
    idle_connections: Arc<Mutex<Vec<Database>>>,
    read_permits: Arc<Semaphore>,
}

impl LedgerReader {
    /// Opens `<data>/ledger.db` for reading. Returns [`StorageError::NotFound`] if there is none.
    pub fn open(data: &Path) -> Result<Self, StorageError> {
        let reader = Self::for_file(ledger_path(data));
        reader
            .idle_connections
            .lock()
            .push(Database::open_read_only(&reader.file)?);
        Ok(reader)
    }

    fn for_file(file: PathBuf) -> Self {
        Self {
            file,
            idle_connections: Arc::default(),
            read_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_READS)),
        }
    }

    fn close_idle_connections(&self) {
        self.idle_connections.lock().clear();
    }

    /// Like [`Ledger::find_document`].
    pub async fn find_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.read_rows(move |c| records::find_document(c, &tenant, &document))
            .await
    }

    /// Like [`Ledger::list_documents`].
    pub async fn list_documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        let tenant = tenant.clone();
        self.read_rows(move |c| records::list_documents(c, &tenant)).await
    }

    /// Like [`Ledger::list_pages`].
    pub async fn list_pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let (tenant, document, revision) = (tenant.clone(), *document, revision.copied());
        self.read_rows(move |c| records::list_pages(c, &tenant, &document, revision.as_ref()))
            .await
    }

    /// Like [`Ledger::find_job`].
    pub async fn find_job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.read_rows(move |c| records::find_job(c, &tenant, &job)).await
    }

    /// Like [`Ledger::list_component_log`].
    pub async fn list_component_log(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<ComponentLogEntry>, StorageError> {
        let (tenant, job, limit) = (tenant.clone(), *job, limit.min(MAX_LISTED_EVENTS));
        self.read_rows(move |c| component_log::list_log_entries(c, &tenant, &job, after, limit))
            .await
    }

    async fn read_rows<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let failed = |reason: String| StorageError::Failed {
            what: LEDGER_NAME.into(),
            reason,
        };
        let permit = Arc::clone(&self.read_permits).acquire_owned().await;
        let permit = permit.map_err(|e| failed(e.to_string()))?;
        let (idle, file) = (Arc::clone(&self.idle_connections), self.file.clone());
        tokio::task::spawn_blocking(move || {
            let taken = idle.lock().pop();
            let database = match taken {
                Some(database) => database,
                None => Database::open_read_only(&file)?,
            };
            let answer = database.with_connection(work)?;
            idle.lock().push(database);
            drop(permit);
            Ok(answer)
        })
        .await
        .map_err(|e| failed(e.to_string()))?
    }
}

fn ledger_path(data: &Path) -> PathBuf {
    data.join("ledger.db")
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn commit_entries(&self, entries: Vec<LedgerEntry>) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        let write_all = move |t: &Transaction<'_>| {
            let mut entries = entries.iter();
            entries.try_fold(false, |removed, entry| {
                Ok(records::write_entry(t, entry)? || removed)
            })
        };
        if self.write_with_storage_usage(write_all).await? {
            self.tenant_admin.schedule_wal_truncation();
        }
        Ok(())
    }

    async fn find_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        self.reader.find_document(tenant, document).await
    }

    async fn list_documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        self.reader.list_documents(tenant).await
    }

    async fn list_pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        self.reader.list_pages(tenant, document, revision).await
    }

    async fn find_job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        self.reader.find_job(tenant, job).await
    }

    async fn list_unfinished_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.reader.read_rows(records::list_unfinished_jobs).await
    }

    async fn list_job_events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        let (tenant, job, limit) = (tenant.clone(), *job, limit.min(MAX_LISTED_EVENTS));
        self.reader
            .read_rows(move |c| records::list_events(c, &tenant, &job, after, limit))
            .await
    }

    async fn list_tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError> {
        let (tenant, limit) = (tenant.clone(), limit.min(MAX_LISTED_EVENTS));
        self.reader
            .read_rows(move |c| records::list_tenant_events(c, &tenant, after, limit))
            .await
    }

    async fn list_component_log(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<ComponentLogEntry>, StorageError> {
        self.reader.list_component_log(tenant, job, after, limit).await
    }

    async fn last_tenant_event_position(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let tenant = tenant.clone();
        self.reader
            .read_rows(move |c| records::find_last_event_position(c, &tenant))
            .await
    }

    async fn list_documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError> {
        let tenant = tenant.clone();
        self.reader
            .read_rows(move |c| records::list_documents_after(c, &tenant, after, limit))
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
        self.reader
            .read_rows(move |c| records::list_pages_after(c, &tenant, &document, after, limit))
            .await
    }

    async fn last_component_log_seq(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.reader
            .read_rows(move |c| component_log::find_last_seq(c, &tenant, &job))
            .await
    }

    async fn erase_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        let known = self
            .write_with_storage_usage(move |t| document_removals::delete_document_rows(t, &tenant, &document))
            .await?;
        self.tenant_admin.truncate_wal_or_schedule().await?;
        Ok(known)
    }
}

#[async_trait]
impl ComponentStateStore for SqliteLedger {
    async fn get_value(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, ErrorInfo> {
        let (tenant, pipeline, key) = (tenant.clone(), pipeline.to_owned(), key.to_owned());
        self.reader
            .read_rows(move |c| policy_state::get_value(c, &tenant, &pipeline, &key))
            .await
            .map_err(to_error_note)
    }

    async fn list_sizes(&self, tenant: &TenantId, pipeline: &str) -> Result<StateSizes, ErrorInfo> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.reader
            .read_rows(move |c| policy_state::list_sizes(c, &tenant, &pipeline))
            .await
            .map_err(to_error_note)
    }

    async fn apply_changes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorInfo> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.write_transaction(move |t| policy_state::apply_changes(t, &tenant, &pipeline, &changes))
            .await
            .map_err(to_error_note)?
    }
}

fn to_error_note(error: StorageError) -> ErrorInfo {
    ErrorInfo {
        kind: error.kind().into(),
        message: error.to_string(),
    }
}
