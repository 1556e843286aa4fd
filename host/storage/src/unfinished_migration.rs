//! The file `migration.json` in a data folder: the folder is the source or the target of a migration that is not finished.
//!
//! Nothing else opens the folder meanwhile, so a source does not change between an interruption and the next attempt, and no process
//! uses an incomplete target.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_core::StorageError;

use crate::data_folder::sync_folder;
use crate::migration_progress::MigratedContent;
use crate::path_with_public_name::PathWithPublicName;

const FILE_NAME: &str = "migration.json";
const NEW_FILE_NAME: &str = "migration.json.new";

/// Where a migration copies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationDirection {
    /// From the data folder to the servers.
    ToServers,
    /// From the servers to the data folder.
    ToFolder,
}

impl MigrationDirection {
    /// Returns the name in the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToServers => "to-servers",
            Self::ToFolder => "to-folder",
        }
    }
}

/// The addresses of the servers that take part, without passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerAddresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ledger: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blobs: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vectors: Option<String>,
}

/// A migration that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnfinishedMigration {
    pub(crate) id: String,
    pub(crate) direction: MigrationDirection,
    /// The servers whose content is copied.
    pub(crate) servers: ServerAddresses,
    /// What was copied, when all of it has been compared. Only the last step is missing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verified: Option<Vec<MigratedContent>>,
}

impl UnfinishedMigration {
    /// Reads the file of a data folder; `None` if there is none.
    pub(crate) fn read(data: &Path) -> Result<Option<Self>, StorageError> {
        let file = file_with_error_name(data);
        match fs::read(file.path()) {
            Ok(content) => serde_json::from_slice(&content)
                .map(Some)
                .map_err(|error| file.damaged_error(error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file.io_error(&error)),
        }
    }

    /// Writes the file. It is durable when the call returns.
    pub(crate) fn write(&self, data: &Path) -> Result<(), StorageError> {
        let (file, new) = (file_with_error_name(data), data.join(NEW_FILE_NAME));
        let write = || {
            let content = serde_json::to_vec_pretty(self)?;
            let mut written = File::create(&new)?;
            written.write_all(&content)?;
            written.sync_all()?;
            fs::rename(&new, file.path())?;
            sync_folder(data)
        };
        write().map_err(|error| file.io_error(&error))
    }

    /// Removes the file: the migration is finished.
    pub(crate) fn remove(data: &Path) -> Result<(), StorageError> {
        let file = file_with_error_name(data);
        fs::remove_file(file.path())
            .and_then(|()| sync_folder(data))
            .map_err(|error| file.io_error(&error))
    }
}

/// Fails if a migration of the data folder is not finished.
pub(crate) fn check_no_unfinished_migration(data: &Path) -> Result<(), StorageError> {
    match UnfinishedMigration::read(data)? {
        Some(_) => Err(unfinished_migration_error("the data folder")),
        None => Ok(()),
    }
}

/// Returns the error of a store that takes part in an unfinished migration.
pub(crate) fn unfinished_migration_error(what: &str) -> StorageError {
    StorageError::Failed {
        what: format!("opening {what}"),
        reason: "a migration of it is not finished: run `weir migrate` again, or see \"Moving to servers\" in docs/operations.md to give it up"
            .into(),
    }
}

fn file_with_error_name(data: &Path) -> PathWithPublicName {
    let path: PathBuf = data.join(FILE_NAME);
    PathWithPublicName::new(format!("{FILE_NAME} in the data folder"), path)
}
