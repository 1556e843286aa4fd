//! Copies a data folder to servers, or servers to a data folder.
//!
//! The ledger, the objects (uploads, components, blobs and recordings) and the points of the index are copied one after the other, each
//! only if the settings name a server for it. Nothing else may use either side. Both sides are opened without a change of their content,
//! except that an SQLite ledger is first brought into the state in which any start brings it: claims of a killed process end, and files
//! that it was changing are measured.
//!
//! The content of the target shows what an interrupted migration has copied: rows up to the last key, objects with a name and a size,
//! points with an id. A file in the data folder ([`UnfinishedMigration`]) names both sides, so that a target with content is accepted only
//! if this migration wrote it. The file keeps other processes out of the folder, and a table keeps nodes out of the PostgreSQL database.
//! Both are removed when all content of both sides has been compared.

mod object_copy;
mod sides;

use std::sync::Arc;

use uuid::Uuid;
use weir_core::StorageError;

pub use self::sides::{Migration, MigrationServers};
use self::sides::{Side, find_content_of_ledger, lock_folder};
use crate::data_folder::FolderLock;
use crate::ledger::{LedgerTables, SqlLedger};
use crate::migration_progress::{MigratedContent, ReportProgress};
use crate::unfinished_migration::{MigrationDirection, ServerAddresses, UnfinishedMigration};
use crate::vectors::{copy_points, verify_points};

impl Migration {
    /// Counts what would be copied, and opens the source only. Fails if another process uses the data folder.
    pub async fn count_source(&self) -> Result<Vec<MigratedContent>, StorageError> {
        let lock = lock_folder(&self.data, self.direction).await?;
        let source = match self.direction {
            MigrationDirection::ToServers => self.open_folder_as_source(&lock, true).await?,
            MigrationDirection::ToFolder => self.open_servers_as_source().await?,
        };
        let counted = source.count_content().await;
        source.close().await.and(counted)
    }

    /// Copies everything that the target does not have, compares both sides and finishes the target. Returns what was copied.
    ///
    /// If it fails or is interrupted, another call goes on. Fails without a change if the target has content that an earlier call did not
    /// write, or if either side is in use.
    pub async fn run(&self, report: &ReportProgress) -> Result<Vec<MigratedContent>, StorageError> {
        let lock = lock_folder(&self.data, self.direction).await?;
        let earlier = UnfinishedMigration::read(&self.data)?;
        let source = match self.direction {
            MigrationDirection::ToServers => self.open_folder_as_source(&lock, false).await?,
            MigrationDirection::ToFolder => self.open_servers_as_source().await?,
        };
        let done = self.run_from(&source, earlier, &lock, report).await;
        source.close().await.and(done)
    }

    async fn run_from(
        &self,
        source: &Side,
        earlier: Option<UnfinishedMigration>,
        lock: &Arc<FolderLock>,
        report: &ReportProgress,
    ) -> Result<Vec<MigratedContent>, StorageError> {
        let servers = self.addresses_of(source)?;
        let is_resumed = earlier.is_some();
        let unfinished = match earlier {
            Some(earlier) => self.check_same_migration(earlier, &servers)?,
            None => {
                if servers == ServerAddresses::default() {
                    return Err(self.refuse(
                        "there is nothing to copy: set storage.ledger, storage.blobs or storage.vectors to the servers",
                    ));
                }
                if let Some(content) = self.find_content_of_target(source).await? {
                    return Err(self.refuse(&format!("the target is not empty: {content}")));
                }
                UnfinishedMigration {
                    id: Uuid::now_v7().to_string(),
                    direction: self.direction,
                    servers,
                    verified: None,
                }
            }
        };
        if unfinished.verified.is_none()
            && let Some(node) = self.find_running_node(source).await?
        {
            return Err(self.refuse(&format!(
                "node {node} runs, or ran until a moment ago: stop all nodes, and wait for the end of the lease (cluster.lease_seconds) if one was killed"
            )));
        }
        if self.direction == MigrationDirection::ToFolder {
            // First, because the folder must not be opened while it is incomplete.
            unfinished.write(&self.data)?;
        }
        let target = self.open_target(source, lock).await?;
        let copied = self
            .copy_and_verify(source, &target, unfinished, is_resumed, report)
            .await;
        let finished = match copied {
            Ok(copied) => self.finish(source, &target, lock).await.map(|()| copied),
            Err(error) => Err(error),
        };
        let closed = target.close().await;
        let copied = finished?;
        closed?;
        UnfinishedMigration::remove(&self.data)?;
        Ok(copied)
    }

    async fn copy_and_verify(
        &self,
        source: &Side,
        target: &Side,
        mut unfinished: UnfinishedMigration,
        is_resumed: bool,
        report: &ReportProgress,
    ) -> Result<Vec<MigratedContent>, StorageError> {
        if let Some(verified) = unfinished.verified {
            return Ok(verified);
        }
        let tables = self.prepare_ledger(source, target, &unfinished).await?;
        copy(source, target, tables.as_ref(), is_resumed, report).await?;
        let verified = verify(source, target, tables.as_ref(), report).await?;
        unfinished.verified = Some(verified.clone());
        unfinished.write(&self.data)?;
        Ok(verified)
    }

    /// Finishes a target that has everything, so that nodes can use it.
    async fn finish(&self, source: &Side, target: &Side, lock: &Arc<FolderLock>) -> Result<(), StorageError> {
        let to_s3 = self.direction == MigrationDirection::ToServers;
        if source.objects.is_some() {
            // The ledger that counts the objects from now on may have its place already.
            match &target.ledger {
                Some(ledger) => ledger.rename_stored_paths(to_s3).await?,
                None => {
                    let kept = match &self.servers.ledger {
                        Some(settings) => Some(SqlLedger::connect_postgres(settings).await?),
                        None => self.open_folder_ledger(lock).await?,
                    };
                    if let Some(ledger) = kept {
                        let renamed = ledger.rename_stored_paths(to_s3).await;
                        ledger.close().await;
                        renamed?;
                    }
                }
            }
        }
        match &target.ledger {
            Some(ledger) => ledger.finish_migration().await,
            None => Ok(()),
        }
    }

    /// Returns the name of a node that uses the ledger on the server.
    async fn find_running_node(&self, source: &Side) -> Result<Option<String>, StorageError> {
        let Some(settings) = &self.servers.ledger else {
            return Ok(None);
        };
        if self.direction == MigrationDirection::ToFolder
            && let Some(ledger) = &source.ledger
        {
            return ledger.find_running_node().await;
        }
        let ledger = SqlLedger::connect_postgres_for_migration(settings).await?;
        let found = ledger.find_running_node().await;
        ledger.close().await;
        found
    }

    fn check_same_migration(
        &self,
        earlier: UnfinishedMigration,
        servers: &ServerAddresses,
    ) -> Result<UnfinishedMigration, StorageError> {
        if earlier.direction != self.direction || earlier.servers != *servers {
            return Err(self.refuse(
                "another migration of the data folder is not finished: finish it first, with its settings",
            ));
        }
        Ok(earlier)
    }

    /// Writes the file that names the migration, marks the ledger as its target, and finds the tables of both ledgers. Fails without a
    /// change if the target is that of another migration, or has rows that none has written.
    async fn prepare_ledger(
        &self,
        source: &Side,
        target: &Side,
        unfinished: &UnfinishedMigration,
    ) -> Result<Option<LedgerTables>, StorageError> {
        let (Some(source), Some(target)) = (&source.ledger, &target.ledger) else {
            unfinished.write(&self.data)?;
            return Ok(None);
        };
        let tables = source.find_common_tables(target).await?;
        if self.direction == MigrationDirection::ToFolder {
            return Ok(Some(tables));
        }
        if target.find_unfinished_migration().await?.as_ref() != Some(&unfinished.id) {
            if let Some(content) = find_content_of_ledger(source, target).await? {
                return Err(self.refuse(&format!("the target is not empty: {content}")));
            }
            unfinished.write(&self.data)?;
            target.mark_unfinished_migration(&unfinished.id).await?;
        }
        Ok(Some(tables))
    }

    fn refuse(&self, reason: &str) -> StorageError {
        StorageError::Failed {
            what: format!("weir migrate {}", self.direction.name()),
            reason: reason.to_owned(),
        }
    }
}

async fn copy(
    source: &Side,
    target: &Side,
    tables: Option<&LedgerTables>,
    is_resumed: bool,
    report: &ReportProgress,
) -> Result<(), StorageError> {
    if let (Some(source), Some(target)) = (&source.objects, &target.objects) {
        object_copy::copy_objects(source, target, is_resumed, report).await?;
    }
    if let (Some(source), Some(target)) = (&source.points, &target.points) {
        copy_points(source, target, is_resumed, report).await?;
    }
    if let (Some(source), Some(target), Some(tables)) = (&source.ledger, &target.ledger, tables) {
        source.copy_tables_to(target, tables, report).await?;
    }
    Ok(())
}

async fn verify(
    source: &Side,
    target: &Side,
    tables: Option<&LedgerTables>,
    report: &ReportProgress,
) -> Result<Vec<MigratedContent>, StorageError> {
    let mut verified = Vec::new();
    if let (Some(source), Some(target), Some(tables)) = (&source.ledger, &target.ledger, tables) {
        verified.extend(source.verify_tables_of(target, tables, report).await?);
    }
    if let (Some(source), Some(target)) = (&source.objects, &target.objects) {
        verified.extend(object_copy::verify_objects(source, target, report).await?);
    }
    if let (Some(source), Some(target)) = (&source.points, &target.points) {
        verified.push(verify_points(source, target, report).await?);
    }
    Ok(verified)
}
