//! Reading the ledger's file with connections of its own, which do not wait for the writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weir_core::StorageError;

use super::database::{Database, ledger_path};
use crate::ledger::ledger_name::LEDGER_NAME;
use crate::ledger::sql_connection::{SqlConnection, SqlResult};

/// Concurrent reads of one reader. Further reads wait.
const MAX_CONCURRENT_READS: usize = 4;

/// Connections for reading. Another process may write to the file meanwhile.
pub(super) struct ReadConnections {
    file: PathBuf,
    idle_connections: Arc<Mutex<Vec<Database>>>,
    read_permits: Arc<Semaphore>,
}

impl ReadConnections {
    /// Opens `<data>/ledger.db` for reading. Returns [`StorageError::NotFound`] if there is none.
    pub(super) fn open(data: &Path) -> Result<Self, StorageError> {
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

    pub(super) async fn run_query<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
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
            let result = database.run_query(work)?;
            idle.lock().push(database);
            drop(permit);
            Ok(result)
        })
        .await
        .map_err(|e| failed(e.to_string()))?
    }
}
