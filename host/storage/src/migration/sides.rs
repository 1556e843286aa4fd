//! The two sides of a migration: the stores that take part in it, opened as source or as target.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_core::StorageError;

use super::object_copy::count_objects;
use crate::data_folder::{FolderLock, create_private_folder, rename_entries_of_earlier_versions};
use crate::ledger::{PostgresConnectionSettings, SqlLedger};
use crate::migration_progress::MigratedContent;
use crate::s3::S3Bucket;
use crate::stored_objects::StoredObjects;
use crate::unfinished_migration::{MigrationDirection, ServerAddresses};
use crate::vectors::{EmbeddedVectorStore, QdrantConnection, QdrantVectorStore, StoredPoints};

/// The servers that take part in a migration. The others are left out.
#[derive(Default)]
pub struct MigrationServers {
    /// The PostgreSQL server for the ledger.
    pub ledger: Option<PostgresConnectionSettings>,
    /// The bucket for uploads, components, blobs and recordings.
    pub bucket: Option<Arc<S3Bucket>>,
    /// The Qdrant server for the passages.
    pub vectors: Option<QdrantConnection>,
}

/// A migration between a data folder and servers.
pub struct Migration {
    /// The data folder.
    pub data: PathBuf,
    /// The direction.
    pub direction: MigrationDirection,
    /// The servers.
    pub servers: MigrationServers,
    /// The embedding model of the passages.
    pub model: String,
    /// The length of its vectors.
    pub dimensions: usize,
}

/// One side. A store is absent if it does not take part.
#[derive(Default)]
pub(super) struct Side {
    pub(super) ledger: Option<SqlLedger>,
    pub(super) objects: Option<StoredObjects>,
    pub(super) points: Option<StoredPoints>,
}

impl Side {
    pub(super) async fn count_content(&self) -> Result<Vec<MigratedContent>, StorageError> {
        let mut counts = Vec::new();
        if let Some(ledger) = &self.ledger {
            counts.extend(ledger.count_rows_of_tables().await?);
        }
        if let Some(objects) = &self.objects {
            counts.extend(count_objects(objects).await?);
        }
        if let Some(points) = &self.points {
            counts.push(MigratedContent {
                store: "vectors".into(),
                name: "points".into(),
                count: points.count().await?,
                bytes: None,
                digest: None,
            });
        }
        Ok(counts)
    }

    /// Flushes and closes the stores. Later calls fail.
    pub(super) async fn close(&self) -> Result<(), StorageError> {
        if let Some(ledger) = &self.ledger {
            ledger.close().await;
        }
        match &self.points {
            Some(points) => points.close().await,
            None => Ok(()),
        }
    }
}

/// Locks the data folder, and creates it if it is the target.
pub(super) async fn lock_folder(
    data: &Path,
    direction: MigrationDirection,
) -> Result<Arc<FolderLock>, StorageError> {
    let data = data.to_owned();
    run_blocking(move || {
        match direction {
            MigrationDirection::ToFolder => create_private_folder(&data)?,
            MigrationDirection::ToServers if !data.exists() => {
                return Err(StorageError::NotFound {
                    what: "the data folder".into(),
                });
            }
            MigrationDirection::ToServers => {}
        }
        let lock = FolderLock::acquire_with_timeout(&data)?;
        rename_entries_of_earlier_versions(&data)?;
        Ok(Arc::new(lock))
    })
    .await
}

impl Migration {
    /// Opens the stores of the folder for which there are servers, as far as they exist.
    pub(super) async fn open_folder_as_source(
        &self,
        lock: &Arc<FolderLock>,
        reads_only: bool,
    ) -> Result<Side, StorageError> {
        let mut side = Side::default();
        if self.servers.ledger.is_some() {
            side.ledger = match reads_only && SqlLedger::exists_in(&self.data) {
                true => Some(SqlLedger::open_read_only(&self.data)?),
                false => self.open_folder_ledger(lock).await?,
            };
        }
        if self.servers.bucket.is_some() {
            let objects = StoredObjects::in_folder(&self.data);
            side.objects = objects.find_any().await?.map(|_| objects);
        }
        if self.servers.vectors.is_some() {
            side.points = self.open_folder_index(lock).await?;
        }
        Ok(side)
    }

    /// Opens the stores on the servers, as far as they exist.
    pub(super) async fn open_servers_as_source(&self) -> Result<Side, StorageError> {
        let mut side = Side::default();
        if let Some(settings) = &self.servers.ledger {
            side.ledger = Some(SqlLedger::connect_postgres(settings).await?);
        }
        side.objects = self.servers.bucket.clone().map(StoredObjects::Bucket);
        if let Some(connection) = &self.servers.vectors {
            let server = QdrantVectorStore::connect_to_collection(connection, self.dimensions, &self.model);
            side.points = server.await?.map(StoredPoints::Server);
        }
        Ok(side)
    }

    /// Opens the targets of the stores of `source`, and creates them if they do not exist.
    pub(super) async fn open_target(
        &self,
        source: &Side,
        lock: &Arc<FolderLock>,
    ) -> Result<Side, StorageError> {
        let mut side = Side::default();
        match self.direction {
            MigrationDirection::ToServers => {
                if let (Some(settings), Some(_)) = (&self.servers.ledger, &source.ledger) {
                    side.ledger = Some(SqlLedger::connect_postgres_for_migration(settings).await?);
                }
                if source.objects.is_some() {
                    side.objects = self.servers.bucket.clone().map(StoredObjects::Bucket);
                }
                if let (Some(connection), Some(_)) = (&self.servers.vectors, &source.points) {
                    let (dimensions, model) = (self.dimensions, &self.model);
                    let server =
                        QdrantVectorStore::connect_and_create_collection(connection, dimensions, model)
                            .await?;
                    side.points = Some(StoredPoints::Server(server));
                }
            }
            MigrationDirection::ToFolder => {
                let (data, lock) = (self.data.clone(), Arc::clone(lock));
                let (model, dimensions) = (self.model.clone(), self.dimensions);
                let (has_ledger, has_points) = (source.ledger.is_some(), source.points.is_some());
                side.objects = source
                    .objects
                    .as_ref()
                    .map(|_| StoredObjects::in_folder(&self.data));
                (side.ledger, side.points) = run_blocking(move || {
                    let open = || SqlLedger::open_or_create_for_migration(&data, Arc::clone(&lock));
                    let ledger = has_ledger.then(open).transpose()?;
                    let open =
                        || EmbeddedVectorStore::open_or_create(&data, &model, dimensions, Arc::clone(&lock));
                    let index = has_points.then(open).transpose()?;
                    Ok((ledger, index.map(StoredPoints::Embedded)))
                })
                .await?;
            }
        }
        Ok(side)
    }

    /// Returns what the target already has of the stores of `source`, with advice; `None` if it is empty. Creates nothing but the tables of
    /// an empty database.
    pub(super) async fn find_content_of_target(&self, source: &Side) -> Result<Option<String>, StorageError> {
        let (servers, data) = (&self.servers, &self.data);
        match self.direction {
            MigrationDirection::ToServers => {
                if let (Some(bucket), Some(_)) = (&servers.bucket, &source.objects)
                    && let Some(key) = StoredObjects::Bucket(Arc::clone(bucket)).find_any().await?
                {
                    return Ok(Some(format!(
                        "storage.blobs has the object {key}. Name another bucket or prefix"
                    )));
                }
                if let (Some(connection), Some(_)) = (&servers.vectors, &source.points) {
                    let server =
                        QdrantVectorStore::connect_to_collection(connection, self.dimensions, &self.model);
                    if let Some(server) = server.await?
                        && StoredPoints::Server(server).count().await? > 0
                    {
                        return Ok(Some(
                            "the collection on the server of storage.vectors has points. Delete it or name another server"
                                .into(),
                        ));
                    }
                }
                if let (Some(settings), Some(source)) = (&servers.ledger, &source.ledger) {
                    let target = SqlLedger::connect_postgres_for_migration(settings).await?;
                    let found = find_content_of_ledger(source, &target).await;
                    target.close().await;
                    return found;
                }
            }
            MigrationDirection::ToFolder => {
                if source.ledger.is_some() && SqlLedger::exists_in(data) {
                    return Ok(Some(
                        "the data folder has a ledger. Name another folder with --data".into(),
                    ));
                }
                if source.objects.is_some()
                    && let Some(key) = StoredObjects::in_folder(data).find_any().await?
                {
                    return Ok(Some(format!(
                        "the data folder has the file {key}. Name another folder with --data"
                    )));
                }
                if source.points.is_some() && EmbeddedVectorStore::exists_in(data) {
                    return Ok(Some(
                        "the data folder has an index. Name another folder with --data".into(),
                    ));
                }
            }
        }
        Ok(None)
    }

    /// Returns the addresses of the servers of the stores of `source`.
    pub(super) fn addresses_of(&self, source: &Side) -> Result<ServerAddresses, StorageError> {
        let (servers, mut addresses) = (&self.servers, ServerAddresses::default());
        if let (Some(settings), Some(_)) = (&servers.ledger, &source.ledger) {
            addresses.ledger = Some(settings.address()?);
        }
        if let (Some(bucket), Some(_)) = (&servers.bucket, &source.objects) {
            addresses.blobs = Some(bucket.address());
        }
        if let (Some(connection), Some(_)) = (&servers.vectors, &source.points) {
            addresses.vectors = Some(connection.url.clone());
        }
        Ok(addresses)
    }

    /// Opens the ledger of the folder as a start does. `None` if it has none.
    pub(super) async fn open_folder_ledger(
        &self,
        lock: &Arc<FolderLock>,
    ) -> Result<Option<SqlLedger>, StorageError> {
        let (data, lock) = (self.data.clone(), Arc::clone(lock));
        run_blocking(move || match SqlLedger::exists_in(&data) {
            true => SqlLedger::open_or_create(&data, lock).map(Some),
            false => Ok(None),
        })
        .await
    }

    async fn open_folder_index(&self, lock: &Arc<FolderLock>) -> Result<Option<StoredPoints>, StorageError> {
        let (data, lock) = (self.data.clone(), Arc::clone(lock));
        let (model, dimensions) = (self.model.clone(), self.dimensions);
        run_blocking(move || match EmbeddedVectorStore::exists_in(&data) {
            true => EmbeddedVectorStore::open_or_create(&data, &model, dimensions, lock)
                .map(|index| Some(StoredPoints::Embedded(index))),
            false => Ok(None),
        })
        .await
    }
}

/// Returns what a database has that should be the target of a copy of `source`; `None` if it is empty.
pub(super) async fn find_content_of_ledger(
    source: &SqlLedger,
    target: &SqlLedger,
) -> Result<Option<String>, StorageError> {
    if target.find_unfinished_migration().await?.is_some() {
        return Ok(Some(
            "the database of storage.ledger is the unfinished target of another migration".into(),
        ));
    }
    let tables = source.find_common_tables(target).await?;
    let table = target.find_table_with_rows(&tables).await?;
    Ok(table.map(|table| {
        format!("the database of storage.ledger has rows in the table {table}. Name an empty database")
    }))
}

async fn run_blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StorageError> + Send + 'static,
) -> Result<R, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StorageError::Failed {
        what: "opening the data folder".into(),
        reason: error.to_string(),
    })?
}
