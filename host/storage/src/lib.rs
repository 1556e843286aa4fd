//! Storage: uploads and blobs in files or on an S3 server, passages in an embedded index or on a Qdrant server, the ledger in
//! SQLite or on a PostgreSQL server.
//!
//! Everything that is not on a server is in one data folder. One process holds it at a time:
//!
//! | name | content |
//! |---|---|
//! | `lock` | locked by the process that writes |
//! | `uploads/<tenant>/<document>` | [`FileUploadStore`] |
//! | `components/<tenant>/<digest>.wasm` | [`FileComponentStore`] |
//! | `blobs/<tenant>/<document>/<rest of the key>`, `blobs.db` | [`FileBlobStore`]: large blobs as files, small ones in a database |
//! | `cache/<kind>/<tenant>/<name>` | copies of uploads and components that are on an [`S3Bucket`], instead of the three folders above |
//! | `vectors/` | [`EmbeddedVectorStore`]; absent with [`QdrantVectorStore`] |
//! | `ledger.db` | [`SqlLedger`]; absent with a PostgreSQL server |
//! | `responses.db` | [`SqliteResponseCache`] |
//! | `recordings/<tenant>/<job>/<session>.calls` | [`FileRecordingStore`]; removed at the start with an S3 server |
//! | `migration.json` | exists while a [`Migration`] of the folder is not finished |
//! | `weir.sock` | socket on which the holder runs searches of `vectors/` for other processes |
//!
//! [`Storage`] is for the process that holds the folder. Other processes can work at the same time, and also while no process holds the
//! folder: [`search_data_folder`] finds passages, [`SqlLedger::open_read_only`] reads the ledger, and [`SqlLedger::open_shared`] changes
//! tenants and API keys. [`RedisClient`] has what nodes may lose: messages and limits of all nodes.

mod blob_file_path;
mod blobs;
mod changed_paths;
mod component_store;
mod data_folder;
mod file_stores;
mod ledger;
mod measured_stores;
mod migration;
mod migration_progress;
mod path_with_public_name;
mod record_stores;
mod recording_keys;
mod recordings;
mod redis_client;
mod response_cache;
mod s3;
mod search_socket_server;
mod small_blob_database;
mod sqlite_file;
mod storage_usage;
mod store_metrics;
mod stored_objects;
mod tenant_files;
mod tenant_removal;
mod unfinished_migration;
mod uploads;
mod vectors;
mod worker_thread;

use std::path::Path;
use std::sync::Arc;

pub use blobs::FileBlobStore;
pub use component_store::FileComponentStore;
pub use ledger::{LINK_KEY_BYTES, PostgresConnectionSettings, SqlLedger};
pub use migration::{Migration, MigrationServers};
pub use migration_progress::{MigratedContent, MigrationProgress, MigrationStep, ReportProgress};
pub use record_stores::JobRecordStores;
pub use recordings::FileRecordingStore;
pub use redis_client::{RedisClient, RedisConnection};
pub use response_cache::SqliteResponseCache;
pub use s3::{
    S3Bucket, S3Connection, S3Credentials, S3Location, S3LocationError, S3RecordingStore,
    ServerSideEncryption,
};
pub use search_socket_server::search_data_folder;
pub use tenant_removal::remove_tenant_with_all_data;
pub use unfinished_migration::MigrationDirection;
pub use uploads::FileUploadStore;
pub use vectors::{EmbeddedVectorStore, MAX_HITS, QdrantConnection, QdrantVectorStore};
use weir_core::StorageError;
use weir_core::component::ComponentStore;
use weir_core::ports::{BlobStore, VectorStore};
use weir_core::recording::RecordingStore;
use weir_core::store_status::StoreStatus;
use weir_core::uploads::UploadStore;

use crate::data_folder::FolderLock;
use crate::file_stores::FileStores;
use crate::measured_stores::MeasuredStore;
use crate::search_socket_server::SearchServer;

/// A data folder that this process holds for writing.
///
/// Call [`Storage::close`] at the end. Dropping the value keeps only what was flushed and committed.
pub struct Storage {
    // The first field, so that a dropped storage removes its socket while it still holds the folder.
    search_server: Option<SearchServer>,
    /// The index in the data folder; `None` if the passages are on a Qdrant server.
    embedded_index: Option<Arc<EmbeddedVectorStore>>,
    /// Uploaded files.
    pub uploads: Arc<dyn UploadStore>,
    /// Components that tenants pushed.
    pub components: Arc<dyn ComponentStore>,
    /// Page images and texts.
    pub blobs: Arc<dyn BlobStore>,
    /// Recorded calls of jobs.
    pub recordings: Arc<dyn RecordingStore>,
    /// Passages.
    pub vectors: Arc<dyn VectorStore>,
    /// Documents, jobs, pages and events. Also the components' state, tenants, job requests, usage, and the revisions of pipelines.
    pub ledger: Arc<SqlLedger>,
    /// Whether the latest calls of the ledger, the blobs and the vectors have succeeded.
    pub store_statuses: Vec<Arc<StoreStatus>>,
    /// Held until everything is closed, also if no store is in the folder.
    _folder_lock: Arc<FolderLock>,
}

/// Stores on other machines, which take the place of those in the data folder.
#[derive(Default)]
pub struct ExternalStores {
    /// The ledger on a PostgreSQL server.
    pub ledger: Option<SqlLedger>,
    /// The passages on a Qdrant server.
    pub vectors: Option<Arc<dyn VectorStore>>,
    /// The uploads, components, blobs and recordings on an S3 server.
    pub bucket: Option<Arc<S3Bucket>>,
}

impl Storage {
    /// Opens a data folder and creates it if it does not exist. `model` is the embedding model and `dimensions` the length of its
    /// vectors; a folder with an index for another model is refused. While another process holds the folder, waits up to two seconds
    /// and then returns [`StorageError::InUse`].
    pub async fn open_or_create(data: &Path, dimensions: usize, model: &str) -> Result<Self, StorageError> {
        Self::open_or_create_with_external_stores(data, dimensions, model, ExternalStores::default()).await
    }

    /// Like [`Storage::open_or_create`], with some stores on other machines.
    pub async fn open_or_create_with_external_stores(
        data: &Path,
        dimensions: usize,
        model: &str,
        external: ExternalStores,
    ) -> Result<Self, StorageError> {
        let (folder, model) = (data.to_owned(), model.to_owned());
        let ExternalStores {
            ledger,
            vectors,
            bucket,
        } = external;
        let (stores, vectors, embedded_index) = match vectors {
            Some(vectors) => {
                let (stores, ()) = FileStores::lock_folder_and_open(data, ledger, bucket, |_| Ok(())).await?;
                (stores, vectors, None)
            }
            None => {
                let open_index =
                    move |lock| EmbeddedVectorStore::open_or_create(&folder, &model, dimensions, lock);
                let (stores, index) =
                    FileStores::lock_folder_and_open(data, ledger, bucket, open_index).await?;
                let index = Arc::new(index);
                (stores, Arc::clone(&index) as Arc<dyn VectorStore>, Some(index))
            }
        };
        let search_server = match &embedded_index {
            Some(index) => Some(SearchServer::bind_socket_and_start(data, index)?),
            None => None,
        };
        let recordings: Arc<dyn RecordingStore> = match &stores.s3 {
            Some(s3) => {
                recordings::remove_recordings_of_former_store(data).await?;
                Arc::new(s3.recordings.clone())
            }
            None => Arc::new(FileRecordingStore::new(data)),
        };
        let (uploads, components, blobs): (
            Arc<dyn UploadStore>,
            Arc<dyn ComponentStore>,
            Arc<dyn BlobStore>,
        ) = match stores.s3 {
            Some(s3) => (Arc::new(s3.uploads), Arc::new(s3.components), Arc::new(s3.blobs)),
            None => (
                Arc::new(stores.uploads),
                Arc::new(stores.components),
                Arc::new(stores.blobs),
            ),
        };
        let blobs = Arc::new(MeasuredStore::new(blobs, "blobs"));
        let vectors = Arc::new(MeasuredStore::new(vectors, "vectors"));
        let ledger = Arc::new(stores.ledger);
        Ok(Self {
            search_server,
            embedded_index,
            uploads,
            components,
            store_statuses: vec![ledger.status(), blobs.status(), vectors.status()],
            blobs,
            recordings,
            vectors,
            ledger,
            _folder_lock: stores.folder_lock,
        })
    }

    /// Rewrites the files of the index in the data folder without removed passages, if there are any. Changes and searches go on
    /// meanwhile.
    pub async fn compact_index(&self) -> Result<(), StorageError> {
        match &self.embedded_index {
            Some(index) => index.compact().await,
            None => Ok(()),
        }
    }

    /// Flushes everything and releases the folder. Returns when another process can open it. Later calls to the stores fail.
    pub async fn close(mut self) -> Result<(), StorageError> {
        if let Some(search_server) = self.search_server.take() {
            search_server.close().await;
        }
        let blobs = self.blobs.flush_blobs().await;
        if let Err(error) = self.compact_index().await {
            tracing::warn!(%error, "the index could not be compacted: removed passages stay in its files until the next start");
        }
        let vectors = match &self.embedded_index {
            Some(index) => index.close().await,
            None => self.vectors.flush_points().await,
        };
        self.ledger.close().await;
        blobs.and(vectors)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use weir_core::TenantId;

    use super::*;

    async fn open_test_storage(data: &Path) -> Storage {
        Storage::open_or_create(data, 16, "test-model").await.unwrap()
    }

    #[tokio::test]
    async fn data_folder_with_former_names_keeps_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let (data, tenant) = (dir.path(), TenantId::default_tenant());
        let storage = open_test_storage(data).await;
        let document = weir_conformance::store_upload(&*storage.uploads, &tenant, b"upload").await;
        storage.close().await.unwrap();
        fs::rename(data.join("uploads"), data.join("originals")).unwrap();
        fs::write(data.join("answers.db"), "cache").unwrap();

        for _ in 0..2 {
            let storage = open_test_storage(data).await;
            assert_eq!(storage.uploads.list_uploads(&tenant).await.unwrap(), [document]);
            assert_eq!(fs::read(data.join("responses.db")).unwrap(), b"cache");
            for former in ["originals", "answers.db"] {
                assert!(!data.join(former).exists(), "{former}");
            }
            storage.close().await.unwrap();
        }
    }

    #[tokio::test]
    async fn removal_of_a_tenant_finds_files_under_former_names() {
        let dir = tempfile::tempdir().unwrap();
        let (data, tenant) = (dir.path(), TenantId::default_tenant());
        open_test_storage(data).await.close().await.unwrap();
        fs::rename(data.join("uploads"), data.join("originals")).unwrap();
        fs::create_dir(data.join("originals/default")).unwrap();
        fs::write(data.join("originals/default/file"), "upload").unwrap();
        remove_tenant_with_all_data(data, &tenant, ExternalStores::default())
            .await
            .unwrap();
        assert!(!data.join("originals").exists() && !data.join("uploads/default").exists());
    }
}
