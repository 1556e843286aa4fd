//! Where things are kept on one machine: blobs in files, passages in an in-process Qdrant shard, the ledger in SQLite.
//!
//! All of it lies in one data folder that one process holds at a time:
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the process that writes |
//! | `blobs/<tenant>/<key>` | [`FileBlobs`] |
//! | `vectors/` | [`EdgeVectors`] |
//! | `ledger.db` | [`SqliteLedger`] |
//! | `weir.sock` | where the holder answers other processes' searches |
//!
//! [`Storage`] is for the process that writes. Others read beside it: [`search`] finds passages and [`LedgerReader`] reads the
//! ledger, whether or not someone holds the folder.

mod attach;
mod blobs;
mod folder;
mod ledger;
mod vectors;
mod worker;

use std::path::Path;
use std::sync::Arc;

pub use attach::search;
pub use blobs::FileBlobs;
pub use ledger::{LedgerReader, SqliteLedger};
pub use vectors::{EdgeVectors, MAX_HITS};
use weir_core::StorageError;

use crate::attach::SearchDesk;
use crate::folder::{FolderLock, make_private};

/// A data folder, held for writing.
///
/// End it with [`Storage::close`]: dropping it keeps what was flushed and committed, and nothing else is promised.
pub struct Storage {
    // First, so that a dropped storage takes its socket away while it still holds the folder.
    desk: SearchDesk,
    /// Page images and texts.
    pub blobs: Arc<FileBlobs>,
    /// Passages.
    pub vectors: Arc<EdgeVectors>,
    /// Documents, jobs, pages and events; also the components' state.
    pub ledger: Arc<SqliteLedger>,
}

impl Storage {
    /// Opens a data folder, making it if need be. `dimensions` and `model` are those of the embeddings it is to hold; a folder
    /// made for others is refused. While another process holds it this waits two seconds, then says
    /// [`StorageError::InUse`].
    pub async fn open(data: &Path, dimensions: usize, model: &str) -> Result<Self, StorageError> {
        let (folder, model) = (data.to_owned(), model.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            make_private(&folder)?;
            let lock = Arc::new(FolderLock::take(&folder)?);
            let ledger = SqliteLedger::open(&folder, Arc::clone(&lock))?;
            let blobs = FileBlobs::open(&folder)?;
            let vectors = EdgeVectors::open(&folder, &model, dimensions, lock)?;
            Ok((Arc::new(blobs), Arc::new(vectors), Arc::new(ledger)))
        });
        let (blobs, vectors, ledger) = opened.await.map_err(|e| StorageError::Failed {
            what: data.display().to_string(),
            reason: e.to_string(),
        })??;
        let desk = SearchDesk::open(data, &vectors)?;
        Ok(Self {
            blobs,
            vectors,
            ledger,
            desk,
        })
    }

    /// Flushes everything and lets go of the folder. Returns when another process can have it; whoever still has one of the
    /// stores finds it closed.
    pub async fn close(self) -> Result<(), StorageError> {
        use weir_core::ports::BlobStore;
        self.desk.close().await;
        let blobs = self.blobs.flush().await;
        let vectors = self.vectors.close().await;
        self.ledger.close().await;
        blobs.and(vectors)
    }
}
