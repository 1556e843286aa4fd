//! Reading the ledger's file with connections of its own, which do not wait for the writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use weir_core::StorageError;

use super::database::{Database, LEDGER_NAME, ledger_path};

/// Concurrent reads of one reader. Further reads wait.
const MAX_CONCURRENT_READS: usize = 4;

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

    pub(super) fn for_file(file: PathBuf) -> Self {
        Self {
            file,
            idle_connections: Arc::default(),
            read_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_READS)),
        }
    }

    pub(super) fn close_idle_connections(&self) {
        self.idle_connections.lock().clear();
    }

    pub(super) async fn run_on_read_connection<R: Send + 'static>(
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
            let result = database.with_connection(work)?;
            idle.lock().push(database);
            drop(permit);
            Ok(result)
        })
        .await
        .map_err(|e| failed(e.to_string()))?
    }
}
