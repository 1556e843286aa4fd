//! The data folder: its lock, its free space, the renames of its entries, and helpers that create and sync folders in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, statvfs};
use weir_core::StorageError;

use crate::path_with_public_name::PathWithPublicName;

/// Time that an opener waits for the lock. A search of another process holds it for milliseconds only.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Former and present names of entries. The log of a database is renamed before its database. So after an interruption, the next open
/// renames the rest and no database is opened without its log.
const RENAMED_ENTRIES: [(&str, &str); 4] = [
    ("originals", "uploads"),
    ("answers.db-wal", "responses.db-wal"),
    ("answers.db-shm", "responses.db-shm"),
    ("answers.db", "responses.db"),
];

/// The lock of a data folder, which one process holds for writing. The kernel releases it when the process ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Acquires the lock, or returns [`StorageError::InUse`] at once.
    pub(crate) fn try_acquire(data: &Path) -> Result<Self, StorageError> {
        let path = data.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| data_path_with_error_name(&path).io_error(&e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(data_path_with_error_name(data).in_use_error()),
            Err(e) => Err(data_path_with_error_name(&path).io_error(&e.into())),
        }
    }

    /// Acquires the lock, and waits for the current holder to release it. Blocks for up to two seconds.
    pub(crate) fn acquire_with_timeout(data: &Path) -> Result<Self, StorageError> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match Self::try_acquire(data) {
                Err(StorageError::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_RETRY_INTERVAL);
                }
                taken => return taken,
            }
        }
    }
}

/// Renames the entries that earlier versions named differently. The caller must hold the lock. Fails if an entry exists under both
/// names.
pub(crate) fn rename_entries_of_earlier_versions(data: &Path) -> Result<(), StorageError> {
    let mut is_changed = false;
    for (former, present) in RENAMED_ENTRIES {
        let (old_path, new_path) = (data.join(former), data.join(present));
        let named = PathWithPublicName::new(format!("{former} in the data folder"), &old_path);
        if !old_path.try_exists().map_err(|e| named.io_error(&e))? {
            continue;
        }
        if new_path.try_exists().map_err(|e| named.io_error(&e))? {
            return Err(named.failed_error(format_args!(
                "it was renamed to {present}, which exists too; keep one of them"
            )));
        }
        fs::rename(&old_path, &new_path).map_err(|e| named.io_error(&e))?;
        is_changed = true;
    }
    match is_changed {
        true => sync_folder(data).map_err(|e| data_path_with_error_name(data).io_error(&e)),
        false => Ok(()),
    }
}

fn data_path_with_error_name(path: &Path) -> PathWithPublicName {
    PathWithPublicName::new("the data folder", path)
}

/// Creates a folder that only its owner can enter, and its parent folders.
pub(crate) fn create_private_folder(path: &Path) -> Result<(), StorageError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| {
            let name = path.file_name().unwrap_or_default().display();
            PathWithPublicName::new(format!("folder {name}"), path).io_error(&e)
        })
}

/// Returns the bytes that may still be written to the file system of `path`; `None` if it does not report them.
pub(crate) fn available_file_system_bytes(path: &Path) -> Option<u64> {
    let stat = statvfs(path).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Returns the bytes of a file, or of all files below a folder; 0 if it does not exist.
pub(crate) fn size_on_disk(path: &Path) -> io::Result<i64> {
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(0),
        data => data?,
    };
    if !metadata.is_dir() {
        return Ok(i64::try_from(metadata.len()).unwrap_or(i64::MAX));
    }
    let mut bytes = 0_i64;
    for entry in fs::read_dir(path)? {
        bytes = bytes.saturating_add(size_on_disk(&entry?.path())?);
    }
    Ok(bytes)
}

/// Syncs a folder, so that its entries survive a power failure.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs a folder and everything in it, so that they survive a power failure.
pub(crate) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = FolderLock::try_acquire(dir.path()).unwrap();
        assert!(matches!(
            FolderLock::try_acquire(dir.path()),
            Err(StorageError::InUse { .. })
        ));
        drop(held);
        FolderLock::try_acquire(dir.path()).unwrap();
    }

    #[test]
    fn acquire_waits_for_the_release() {
        let dir = tempfile::tempdir().unwrap();
        let held = FolderLock::try_acquire(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| FolderLock::acquire_with_timeout(dir.path()).map(drop));
            drop(held);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn former_entries_are_renamed_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("originals/acme")).unwrap();
        fs::write(dir.path().join("answers.db"), "database").unwrap();
        fs::write(dir.path().join("answers.db-wal"), "log").unwrap();
        for _ in 0..2 {
            rename_entries_of_earlier_versions(dir.path()).unwrap();
            assert!(dir.path().join("uploads/acme").is_dir());
            assert_eq!(fs::read(dir.path().join("responses.db")).unwrap(), b"database");
            assert_eq!(fs::read(dir.path().join("responses.db-wal")).unwrap(), b"log");
            assert!(!dir.path().join("originals").exists() && !dir.path().join("answers.db").exists());
        }
        fs::create_dir(dir.path().join("originals")).unwrap();
        let refused = rename_entries_of_earlier_versions(dir.path())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("originals") && refused.contains("uploads"),
            "{refused}"
        );
    }
}
