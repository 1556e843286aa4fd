//! Where things are kept on one machine: blobs in files, passages in an in-process Qdrant shard, the ledger in SQLite.
//!
//! All of it lies in one data folder that one process holds at a time:
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the process that writes |
//! | `originals/<tenant>/<document>` | [`FileOriginals`] |
//! | `blobs/<tenant>/<key>` | [`FileBlobs`] |
//! | `vectors/` | [`EdgeVectors`] |
//! | `ledger.db` | [`SqliteLedger`] |
//! | `answers.db` | [`SqliteAnswers`] |
//! | `recordings/<tenant>` | jobs' calls, of `weir-policy`; removed with their tenant |
//! | `weir.sock` | where the holder answers other processes' searches |
//!
//! [`Storage`] is for the process that writes. Others work beside it, whether or not someone holds the folder: [`search`] finds
//! passages, [`LedgerReader`] reads the ledger, and [`TenantDesk`] changes tenants and keys.

mod answers;
mod attach;
mod blobs;
mod components;
mod files;
mod folder;
mod kept;
mod ledger;
mod location;
mod originals;
mod recount;
mod removal;
mod vectors;
mod worker;

use std::path::Path;
use std::sync::Arc;

pub use answers::SqliteAnswers;
pub use attach::search;
pub use blobs::FileBlobs;
pub use components::FileComponents;
pub use ledger::{LedgerReader, SqliteLedger, TenantDesk};
pub use originals::FileOriginals;
pub use removal::remove_tenant;
pub use vectors::{EdgeVectors, MAX_HITS};
use weir_core::StorageError;

use crate::attach::SearchDesk;
use crate::folder::{FolderLock, make_private};
use crate::recount::Recount;

/// A data folder, held for writing.
///
/// End it with [`Storage::close`]: dropping it keeps what was flushed and committed, and nothing else is promised.
pub struct Storage {
    // First, so that a dropped storage takes its socket away while it still holds the folder.
    desk: SearchDesk,
    recount: Recount,
    /// What clients sent.
    pub originals: Arc<FileOriginals>,
    /// What tenants pushed.
    pub components: Arc<FileComponents>,
    /// Page images and texts.
    pub blobs: Arc<FileBlobs>,
    /// Passages.
    pub vectors: Arc<EdgeVectors>,
    /// Documents, jobs, pages and events; also the components' state, tenants, orders, usage, and
    /// the revisions of pipelines.
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
            let (ledger, exact) = SqliteLedger::open(&folder, Arc::clone(&lock))?;
            let kept = ledger.kept();
            let originals = FileOriginals::open(&folder, Arc::clone(kept))?;
            let components = FileComponents::open(&folder, Arc::clone(kept))?;
            let blobs = FileBlobs::open(&folder, Arc::clone(kept))?;
            let vectors = EdgeVectors::open(&folder, &model, dimensions, lock)?;
            // Before anyone can change a file.
            let recount = Recount::start(&folder, kept, &exact)?;
            Ok(((originals, components), blobs, vectors, ledger, recount))
        });
        let ((originals, components), blobs, vectors, ledger, recount) =
            opened.await.map_err(|e| StorageError::Failed {
                what: "opening the data folder".into(),
                reason: e.to_string(),
            })??;
        let (originals, blobs) = (Arc::new(originals), Arc::new(blobs));
        let components = Arc::new(components);
        let (vectors, ledger) = (Arc::new(vectors), Arc::new(ledger));
        let desk = SearchDesk::open(data, &vectors)?;
        Ok(Self {
            recount,
            originals,
            components,
            blobs,
            vectors,
            ledger,
            desk,
        })
    }

    /// Returns when it is known for sure what each tenant keeps. After an end that was not [`Storage::close`] it is being
    /// counted, and until then the last number written down stands in.
    pub async fn counted(&self) {
        self.recount.ended().await;
    }

    /// Flushes everything and lets go of the folder. Returns when another process can have it; whoever still has one of the
    /// stores finds it closed.
    pub async fn close(self) -> Result<(), StorageError> {
        use weir_core::ports::BlobStore;
        self.desk.close().await;
        self.recount.stop().await;
        let blobs = self.blobs.flush().await;
        if let Err(error) = self.vectors.compact().await {
            tracing::warn!(%error, "removed passages are removed from the files of the index at the next start");
        }
        let vectors = self.vectors.close().await;
        self.ledger.close().await;
        blobs.and(vectors)
    }
}
