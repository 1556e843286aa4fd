//! Files that tenants sent: `<root>/<tenant>/<name>`.
//!
//! A file is received in a folder for unfinished files, which the next opener empties. Then the file is synced and renamed into its
//! tenant's folder, and that folder is synced. An acknowledged file must not be lost, because it cannot be made again.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_core::local_file::LocalFile;
use weir_core::{StorageError, TenantId};

use crate::data_folder::{create_private_folder, size_on_disk, sync_folder};
use crate::path_with_public_name::PathWithPublicName;
use crate::storage_usage::{MAX_MARKED_PATHS, StorageUsageTracker};

/// The folder of files that are being received. Tenant names have no dot, so none is equal to it.
const UNFINISHED_FOLDER: &str = ".unfinished";

/// A folder with a subfolder of files for each tenant.
pub(crate) struct TenantFiles {
    /// The name of a file in errors.
    kind: &'static str,
    /// The name of the folder in the data folder.
    folder: &'static str,
    root: PathBuf,
    storage_usage: StorageUsageTracker,
    next_number: AtomicU64,
}

impl TenantFiles {
    /// Opens a folder of the data folder and creates it if it does not exist. Removes unfinished files, so only one process may have it
    /// open. Blocks on the disk.
    pub(crate) fn open_and_remove_unfinished_files(
        kind: &'static str,
        data: &Path,
        folder: &'static str,
        storage_usage: StorageUsageTracker,
    ) -> Result<Self, StorageError> {
        let root = data.join(folder);
        let unfinished = root.join(UNFINISHED_FOLDER);
        match fs::remove_dir_all(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(PathWithPublicName::from_path_below_root(&root, kind, &unfinished).io_error(&e));
            }
            _ => {}
        }
        create_private_folder(&unfinished)?;
        Ok(Self {
            kind,
            folder,
            root,
            storage_usage,
            next_number: AtomicU64::new(0),
        })
    }

    /// Runs `work` on a thread that may block.
    pub(crate) async fn run_blocking<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let files = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&files)).await {
            Ok(result) => result,
            Err(e) => Err(StorageError::Failed {
                what: format!("the folder of each {}", self.kind),
                reason: e.to_string(),
            }),
        }
    }

    /// Returns a path of the folder with its name for errors.
    pub(crate) fn path_with_error_name(&self, path: &Path) -> PathWithPublicName {
        PathWithPublicName::from_path_below_root(&self.root, self.kind, path)
    }

    pub(crate) fn root_folder(&self) -> &Path {
        &self.root
    }

    /// Returns a number that no other call returns.
    pub(crate) fn take_unique_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns a new path for a file that is being received.
    pub(crate) fn new_unfinished_path(&self) -> PathBuf {
        self.root
            .join(UNFINISHED_FOLDER)
            .join(self.take_unique_number().to_string())
    }

    fn tenant_folder(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    /// Returns the path of a file, which need not exist.
    pub(crate) fn file_path(&self, tenant: &TenantId, name: &str) -> PathBuf {
        self.tenant_folder(tenant).join(name)
    }

    /// Returns the path, relative to the data folder, under which the bytes of a file are counted.
    fn storage_usage_path(&self, tenant: &TenantId, name: &str) -> String {
        format!("{}/{tenant}/{name}", self.folder)
    }

    /// Moves a received file to its place. The file is durable when the call returns.
    pub(crate) fn commit_file(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        name: &str,
    ) -> Result<(), StorageError> {
        let (folder, path) = (self.tenant_folder(tenant), self.file_path(tenant, name));
        let io = |e: io::Error| self.path_with_error_name(&path).io_error(&e);
        File::open(unfinished)
            .and_then(|file| file.sync_all())
            .map_err(io)?;
        let new_folder = !folder.exists();
        create_private_folder(&folder)?;
        let committed = self.storage_usage.change_files_and_count_bytes(
            tenant,
            &self.storage_usage_path(tenant, name),
            || {
                let grown = size_on_disk(unfinished)? - size_on_disk(&path)?;
                fs::rename(unfinished, &path)?;
                // rename(2) of a hard link over another link of the same file leaves both.
                remove_file_if_exists(unfinished)?;
                Ok(grown)
            },
        );
        committed?.map_err(io)?;
        sync_folder(&folder).map_err(io)?;
        if new_folder {
            sync_folder(&self.root).map_err(io)?;
        }
        Ok(())
    }

    /// Returns a stored file; `None` if it does not exist.
    pub(crate) fn open_file(&self, tenant: &TenantId, name: &str) -> Result<Option<LocalFile>, StorageError> {
        let path = self.file_path(tenant, name);
        match path.try_exists() {
            Ok(true) => Ok(Some(path.into())),
            Ok(false) => Ok(None),
            Err(error) => Err(self.path_with_error_name(&path).io_error(&error)),
        }
    }

    /// Removes a file. Returns whether it existed.
    pub(crate) fn remove_file(&self, tenant: &TenantId, name: &str) -> Result<bool, StorageError> {
        let existed = self.remove_file_without_saving_size(tenant, name)?;
        if existed {
            self.storage_usage.save_changed_file_sizes()?;
        }
        Ok(existed)
    }

    /// Removes a file without saving the new size.
    fn remove_file_without_saving_size(&self, tenant: &TenantId, name: &str) -> Result<bool, StorageError> {
        let path = self.file_path(tenant, name);
        let io = |e: io::Error| self.path_with_error_name(&path).io_error(&e);
        // While the file is open, its removal is short. The disk space is freed when it is closed.
        let _open = File::open(&path);
        let mut existed = true;
        let removed = self.storage_usage.change_files_and_count_bytes(
            tenant,
            &self.storage_usage_path(tenant, name),
            || {
                let bytes = size_on_disk(&path)?;
                match fs::remove_file(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => existed = false,
                    removed => removed?,
                }
                Ok(-bytes)
            },
        );
        removed?.map_err(io)?;
        Ok(existed)
    }

    /// Lists the names of a tenant's files, sorted.
    pub(crate) fn list_file_names(&self, tenant: &TenantId) -> Result<Vec<String>, StorageError> {
        let folder = self.tenant_folder(tenant);
        let io = |e: io::Error| self.path_with_error_name(&folder).io_error(&e);
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(io)?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes all of a tenant's files.
    pub(crate) fn remove_all_files_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        for names in self.list_file_names(tenant)?.chunks(MAX_MARKED_PATHS) {
            let paths = names.iter().map(|name| self.storage_usage_path(tenant, name));
            self.storage_usage.mark_paths_before_changes(tenant, paths)?;
            for name in names {
                self.remove_file_without_saving_size(tenant, name)?;
            }
            self.storage_usage.save_changed_file_sizes()?;
        }
        // Fails if a new file has arrived meanwhile. Then the file and the folder stay.
        let _ = fs::remove_dir(self.tenant_folder(tenant));
        Ok(())
    }
}

/// Removes a file. A missing file is not an error.
pub(crate) fn remove_file_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
