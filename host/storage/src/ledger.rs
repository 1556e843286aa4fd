//! The ledger in SQLite: `<data>/ledger.db`.
//!
//! Written by one thread over one connection, one transaction for each group of entries, with a write-ahead log and an fsync
//! before a commit returns: that is the port's promise, and why the engine commits in groups. Read over connections of
//! their own, which the log lets go on beside the writer, also from another process ([`LedgerReader`]). Tenants and keys can
//! be written from another process as well ([`TenantDesk`]).

mod columns;
pub(crate) mod database;
mod desk;
mod orders;
mod pipelines;
mod removals;
mod rows;
mod said;
mod shadows;
mod state;
mod tenants;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;
use weir_core::event::{ErrorNote, Event};
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, PageRecord};
use weir_core::ports::{Ledger, PolicyState};
use weir_core::said::LogEntry;
use weir_core::state::{StateChange, StateSizes};
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, StorageError, TenantId};

use self::database::Database;
pub use self::desk::TenantDesk;
use crate::folder::FolderLock;
use crate::kept::Kept;
use crate::worker::Worker;

/// What errors call it.
pub(crate) const LEDGER: &str = "the ledger";
/// Reads at once; more wait.
const READS: usize = 4;
/// Most events one call answers with.
const MAX_EVENTS: usize = 10_000;

/// A [`Ledger`], [`PolicyState`], [`Registry`](weir_core::tenancy::Registry), [`Orders`](weir_core::order::Orders),
/// [`PipelineBook`](weir_core::revision::PipelineBook) and [`UsageBook`](weir_core::usage::UsageBook) in a SQLite file.
pub struct SqliteLedger {
    writer: Arc<Worker<Writer>>,
    reader: LedgerReader,
    desk: TenantDesk,
    kept: Arc<Kept>,
}

struct Writer {
    database: Database,
    /// Nobody's, if it writes beside the folder's holder.
    _lock: Option<Arc<FolderLock>>,
}

impl SqliteLedger {
    /// Opens `<data>/ledger.db`, making it if need be; also says of which tenants it is known for sure what they keep. Blocks
    /// on the disk.
    pub(crate) fn open(data: &Path, lock: Arc<FolderLock>) -> Result<(Self, Vec<TenantId>), StorageError> {
        let file = file(data);
        let database = Database::create(&file)?;
        let kept = database.change(usage::open_kept)?;
        let exact = kept.iter().filter(|(.., exact)| *exact);
        let exact = exact.map(|(tenant, ..)| tenant.clone()).collect();
        let kept = kept.into_iter().map(|(tenant, bytes, _)| (tenant, bytes));
        let writer = Writer {
            database,
            _lock: Some(lock),
        };
        let writer = Arc::new(Worker::start("weir-ledger", LEDGER.into(), writer)?);
        let ledger = Self {
            desk: TenantDesk::over(Arc::clone(&writer), LedgerReader::at(file.clone())),
            writer,
            reader: LedgerReader::at(file),
            kept: Arc::new(Kept::new(kept)),
        };
        Ok((ledger, exact))
    }

    /// What tenants keep; it is written down here.
    pub(crate) const fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    /// Returns when all commits asked for are done and the file is closed; every later commit fails, and so does every later
    /// change of what tenants keep.
    pub async fn close(&self) {
        let kept = Arc::clone(&self.kept);
        let last = self.write(move |t| {
            let mut last = kept.close().into_iter();
            last.try_for_each(|(tenant, bytes, exact)| usage::write_kept(t, &tenant, bytes, exact))
        });
        if let Err(error) = last.await {
            tracing::warn!(%error, "what tenants keep will be counted again at the next start");
        }
        self.writer.close().await;
        self.reader.rest();
        self.desk.rest();
    }

    async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.writer.call(move |writer| writer.database.change(work)).await
    }

    /// The same, and with it what tenants keep by now.
    async fn write_counted<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let kept = Arc::clone(&self.kept);
        let change = move |writer: &mut Writer| {
            let unwritten = kept.take_unwritten();
            let written = writer.database.change(|t| {
                for (tenant, bytes) in &unwritten {
                    usage::write_kept(t, tenant, *bytes, false)?;
                }
                work(t)
            });
            if written.is_err() {
                kept.owe(&unwritten);
            }
            written
        };
        self.writer.call(change).await
    }
}

/// Reads a ledger, also one that another process writes to.
pub struct LedgerReader {
    file: PathBuf,
    idle: Arc<Mutex<Vec<Database>>>,
    reads: Arc<Semaphore>,
}

impl LedgerReader {
    /// A reader of `<data>/ledger.db`; [`StorageError::Missing`] if there is none.
    pub fn open(data: &Path) -> Result<Self, StorageError> {
        let reader = Self::at(file(data));
        reader.idle.lock().push(Database::read_only(&reader.file)?);
        Ok(reader)
    }

    fn at(file: PathBuf) -> Self {
        Self {
            file,
            idle: Arc::default(),
            reads: Arc::new(Semaphore::new(READS)),
        }
    }

    /// Closes what is idle.
    fn rest(&self) {
        self.idle.lock().clear();
    }

    /// As [`Ledger::document`].
    pub async fn document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.read(move |c| rows::document(c, &tenant, &document)).await
    }

    /// As [`Ledger::documents`].
    pub async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        let tenant = tenant.clone();
        self.read(move |c| rows::documents(c, &tenant)).await
    }

    /// As [`Ledger::pages`].
    pub async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let (tenant, document, revision) = (tenant.clone(), *document, revision.copied());
        self.read(move |c| rows::pages(c, &tenant, &document, revision.as_ref()))
            .await
    }

    /// As [`Ledger::job`].
    pub async fn job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.read(move |c| rows::job(c, &tenant, &job)).await
    }

    /// As [`Ledger::said`].
    pub async fn said(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let (tenant, job, limit) = (tenant.clone(), *job, limit.min(MAX_EVENTS));
        self.read(move |c| said::entries(c, &tenant, &job, after, limit))
            .await
    }

    async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let failed = |reason: String| StorageError::Failed {
            what: LEDGER.into(),
            reason,
        };
        let place = Arc::clone(&self.reads).acquire_owned().await;
        let place = place.map_err(|e| failed(e.to_string()))?;
        let (idle, file) = (Arc::clone(&self.idle), self.file.clone());
        tokio::task::spawn_blocking(move || {
            let taken = idle.lock().pop();
            let database = match taken {
                Some(database) => database,
                None => Database::read_only(&file)?,
            };
            let answer = database.with(work)?;
            idle.lock().push(database);
            drop(place);
            Ok(answer)
        })
        .await
        .map_err(|e| failed(e.to_string()))?
    }
}

fn file(data: &Path) -> PathBuf {
    data.join("ledger.db")
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn commit(&self, entries: Vec<Entry>) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        let write_all = move |t: &Transaction<'_>| {
            let mut entries = entries.iter();
            entries.try_fold(false, |removed, entry| Ok(rows::write(t, entry)? || removed))
        };
        if self.write_counted(write_all).await? {
            self.desk.empty_log_soon();
        }
        Ok(())
    }

    async fn document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        self.reader.document(tenant, document).await
    }

    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        self.reader.documents(tenant).await
    }

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        self.reader.pages(tenant, document, revision).await
    }

    async fn job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        self.reader.job(tenant, job).await
    }

    async fn unfinished(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.reader.read(rows::unfinished).await
    }

    async fn events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        let (tenant, job, limit) = (tenant.clone(), *job, limit.min(MAX_EVENTS));
        self.reader
            .read(move |c| rows::events(c, &tenant, &job, after, limit))
            .await
    }

    async fn tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError> {
        let (tenant, limit) = (tenant.clone(), limit.min(MAX_EVENTS));
        self.reader
            .read(move |c| rows::tenant_events(c, &tenant, after, limit))
            .await
    }

    async fn said(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.reader.said(tenant, job, after, limit).await
    }

    async fn tenant_place(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let tenant = tenant.clone();
        self.reader.read(move |c| rows::tenant_place(c, &tenant)).await
    }

    async fn documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError> {
        let tenant = tenant.clone();
        self.reader
            .read(move |c| rows::documents_after(c, &tenant, after, limit))
            .await
    }

    async fn pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.reader
            .read(move |c| rows::pages_after(c, &tenant, &document, after, limit))
            .await
    }

    async fn last_said(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.reader.read(move |c| said::last(c, &tenant, &job)).await
    }

    async fn forget(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        let known = self
            .write_counted(move |t| removals::forget(t, &tenant, &document))
            .await?;
        self.desk.empty_log().await?;
        Ok(known)
    }
}

#[async_trait]
impl PolicyState for SqliteLedger {
    async fn get(&self, tenant: &TenantId, pipeline: &str, key: &str) -> Result<Option<Vec<u8>>, ErrorNote> {
        let (tenant, pipeline, key) = (tenant.clone(), pipeline.to_owned(), key.to_owned());
        self.reader
            .read(move |c| state::get(c, &tenant, &pipeline, &key))
            .await
            .map_err(noted)
    }

    async fn sizes(&self, tenant: &TenantId, pipeline: &str) -> Result<StateSizes, ErrorNote> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.reader
            .read(move |c| state::sizes(c, &tenant, &pipeline))
            .await
            .map_err(noted)
    }

    async fn apply(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorNote> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.write(move |t| state::apply(t, &tenant, &pipeline, &changes))
            .await
            .map_err(noted)?
    }
}

fn noted(error: StorageError) -> ErrorNote {
    ErrorNote {
        kind: error.kind().into(),
        message: error.to_string(),
    }
}
