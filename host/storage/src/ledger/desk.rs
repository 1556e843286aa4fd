//! Where tenants and their keys are looked up and changed, also beside a server that holds the folder.
//!
//! SQLite lets several processes write, so the commands that change tenants need nothing of the server: they write, and its
//! next look-up finds it. Look-ups have connections of their own, for they come with every request and must not wait behind
//! the reading of a long list.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Transaction;
use tokio::time::sleep;
use weir_core::tenancy::{KeyRecord, Registry, Tenant, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::database::{Database, truncate_log};
use super::{LEDGER, LedgerReader, SqliteLedger, Writer, file, tenants};
use crate::folder::{FolderLock, make_private};
use crate::worker::Worker;

/// Rows of a table that are removed at once; other writers have their turn in between.
const PIECE: usize = 2_000;
/// Time before the log is emptied, and between two tries.
const LOG_RETRY: Duration = Duration::from_secs(1);

/// A [`Registry`] in the ledger of a data folder, whoever holds the folder.
pub struct TenantDesk {
    writer: Arc<Worker<Writer>>,
    reader: LedgerReader,
    /// Whether the log is about to be emptied.
    emptying: Arc<AtomicBool>,
}

fn empty_log(writer: &mut Writer) -> Result<bool, StorageError> {
    writer.database.with(truncate_log)
}

impl TenantDesk {
    /// Opens the ledger of a data folder; [`StorageError::Missing`] if there is none.
    pub async fn open(data: &Path) -> Result<Self, StorageError> {
        blocking(data, |data| Self::at(data, beside(data)?)).await
    }

    /// The same, making folder and ledger if need be.
    pub async fn create(data: &Path) -> Result<Self, StorageError> {
        blocking(data, |data| {
            make_private(data)?;
            match beside(data) {
                Err(StorageError::Missing { .. }) => Self::at(data, held(data)?),
                opened => Self::at(data, opened?),
            }
        })
        .await
    }

    fn at(data: &Path, database: Database) -> Result<Self, StorageError> {
        let file = file(data);
        let writer = Writer {
            database,
            _lock: None,
        };
        let writer = Worker::start("weir-tenants", LEDGER.into(), writer)?;
        Ok(Self::over(Arc::new(writer), LedgerReader::at(file)))
    }

    pub(super) fn over(writer: Arc<Worker<Writer>>, reader: LedgerReader) -> Self {
        Self {
            writer,
            reader,
            emptying: Arc::default(),
        }
    }

    /// Lets go of the connections for look-ups.
    pub(super) fn rest(&self) {
        self.reader.rest();
    }

    /// Empties the log, so that nothing of removed rows is left on the disk. Goes on trying after it returns if a reader still
    /// needs the log.
    pub(super) async fn empty_log(&self) -> Result<(), StorageError> {
        if !self.writer.call(empty_log).await? {
            self.empty_log_soon();
        }
        Ok(())
    }

    /// Empties the log within seconds. Calls that come meanwhile are met by the same work.
    pub(super) fn empty_log_soon(&self) {
        if self.emptying.swap(true, Ordering::AcqRel) {
            return;
        }
        let (writer, emptying) = (Arc::downgrade(&self.writer), Arc::clone(&self.emptying));
        tokio::spawn(async move {
            loop {
                sleep(LOG_RETRY).await;
                // Before the log is emptied: what is removed from here on needs another time.
                emptying.store(false, Ordering::Release);
                let Some(writer) = writer.upgrade() else { return };
                match writer.call(empty_log).await {
                    Ok(false) if !emptying.swap(true, Ordering::AcqRel) => {}
                    // Also if the ledger has been closed: the next opener empties the log.
                    _ => return,
                }
            }
        });
    }

    async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.writer.call(move |writer| writer.database.change(work)).await
    }
}

async fn blocking<R: Send + 'static>(
    data: &Path,
    work: impl FnOnce(&Path) -> Result<R, StorageError> + Send + 'static,
) -> Result<R, StorageError> {
    let folder = data.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&folder)).await;
    done.map_err(|e| StorageError::Failed {
        what: "opening the ledger".into(),
        reason: e.to_string(),
    })?
}

/// The ledger of a folder that someone else may hold. One with an earlier schema is brought up to date first.
fn beside(data: &Path) -> Result<Database, StorageError> {
    match Database::beside(&file(data))? {
        Some(database) => Ok(database),
        None => held(data),
    }
}

/// The ledger of a folder that is held for a moment, so that its schema can be changed. Whoever had it longer than that may
/// have changed the schema in the meantime.
fn held(data: &Path) -> Result<Database, StorageError> {
    match FolderLock::take(data) {
        Ok(_lock) => Database::create(&file(data)),
        Err(in_use) => Database::beside(&file(data))?.ok_or(in_use),
    }
}

#[async_trait]
impl Registry for TenantDesk {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError> {
        let tenant = tenant.clone();
        self.write(move |t| tenants::create(t, &tenant)).await
    }

    async fn change_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError> {
        let (id, change) = (id.clone(), change.clone());
        self.write(move |t| tenants::change(t, &id, &change)).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError> {
        let id = id.clone();
        self.reader.read(move |c| tenants::tenant(c, &id)).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        self.reader.read(tenants::tenants).await
    }

    async fn lock_out(&self, id: &TenantId) -> Result<bool, StorageError> {
        let tenant = id.clone();
        self.write(move |t| tenants::lock_out(t, &tenant)).await
    }

    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError> {
        self.lock_out(id).await?;
        loop {
            let tenant = id.clone();
            let more = self.write(move |t| tenants::remove_some(t, &tenant, PIECE));
            if !more.await? {
                break;
            }
        }
        let tenant = id.clone();
        let known = self.write(move |t| tenants::remove_rest(t, &tenant)).await?;
        self.empty_log().await?;
        Ok(known)
    }

    async fn put_key(&self, key: &KeyRecord) -> Result<(), StorageError> {
        let key = key.clone();
        self.write(move |t| tenants::put_key(t, &key)).await?
    }

    async fn revoke_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError> {
        let id = id.to_owned();
        self.write(move |t| tenants::revoke_key(t, &id, now_millis)).await
    }

    async fn replace_key(&self, old: &str, fresh: &KeyRecord, now_millis: u64) -> Result<bool, StorageError> {
        let (old, fresh) = (old.to_owned(), fresh.clone());
        self.write(move |t| tenants::replace_key(t, &old, &fresh, now_millis))
            .await?
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StorageError> {
        let id = id.to_owned();
        self.reader.read(move |c| tenants::key(c, &id)).await
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<KeyRecord>, StorageError> {
        let tenant = tenant.clone();
        self.reader.read(move |c| tenants::keys(c, &tenant)).await
    }
}

#[async_trait]
impl Registry for SqliteLedger {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError> {
        self.desk.create_tenant(tenant).await
    }

    async fn change_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError> {
        self.desk.change_tenant(id, change).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError> {
        self.desk.tenant(id).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        self.desk.tenants().await
    }

    async fn lock_out(&self, id: &TenantId) -> Result<bool, StorageError> {
        self.desk.lock_out(id).await
    }

    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError> {
        self.desk.remove_tenant(id).await
    }

    async fn put_key(&self, key: &KeyRecord) -> Result<(), StorageError> {
        self.desk.put_key(key).await
    }

    async fn revoke_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError> {
        self.desk.revoke_key(id, now_millis).await
    }

    async fn replace_key(&self, old: &str, fresh: &KeyRecord, now_millis: u64) -> Result<bool, StorageError> {
        self.desk.replace_key(old, fresh, now_millis).await
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StorageError> {
        self.desk.key(id).await
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<KeyRecord>, StorageError> {
        self.desk.keys(tenant).await
    }
}
