//! The data folder: who holds it, how much room it has, and how something in it is made whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, statvfs};
use weir_core::StorageError;

use crate::location::Location;

/// How long an opener waits for the folder. A search that opened it is gone within milliseconds; a run is not.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// The right to write to a data folder. One process has it at a time; the kernel takes it back when the process ends,
/// however it ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, or says [`StorageError::InUse`] at once.
    pub(crate) fn try_take(data: &Path) -> Result<Self, StorageError> {
        let path = data.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| of_data(&path).io(&e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(of_data(data).in_use()),
            Err(e) => Err(of_data(&path).io(&e.into())),
        }
    }

    /// Takes the folder, waiting a moment for someone who is just leaving. Blocks for up to two seconds.
    pub(crate) fn take(data: &Path) -> Result<Self, StorageError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::try_take(data) {
                Err(StorageError::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(RETRY_EVERY);
                }
                taken => return taken,
            }
        }
    }
}

fn of_data(path: &Path) -> Location {
    Location::new("the data folder", path)
}

/// Makes a folder that only its owner can enter, and those above it.
pub(crate) fn make_private(path: &Path) -> Result<(), StorageError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| {
            let name = path.file_name().unwrap_or_default().display();
            Location::new(format!("folder {name}"), path).io(&e)
        })
}

/// Bytes that may still be written to the file system `path` is on; `None` where it does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = statvfs(path).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// [`StorageError::Full`] if fewer than `bytes` are free.
///
/// Files written through memory maps are made sparse: the kernel finds room for a page when it is first touched, and where
/// there is none it kills the process with SIGBUS. So room is looked for before, not after.
pub(crate) fn need_room(location: &Location, bytes: u64) -> Result<(), StorageError> {
    match free_bytes(location.path()) {
        Some(free) if free < bytes => Err(location.full()),
        _ => Ok(()),
    }
}

/// Makes the entries of a folder survive a power cut.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a folder and everything in it survive a power cut.
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
    fn a_folder_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = FolderLock::try_take(dir.path()).unwrap();
        assert!(matches!(
            FolderLock::try_take(dir.path()),
            Err(StorageError::InUse { .. })
        ));
        drop(held);
        FolderLock::try_take(dir.path()).unwrap();
    }

    #[test]
    fn a_holder_who_leaves_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = FolderLock::try_take(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| FolderLock::take(dir.path()).map(drop));
            drop(held);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn room_that_is_not_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = of_data(dir.path());
        need_room(&folder, 1).unwrap();
        assert!(matches!(
            need_room(&folder, u64::MAX),
            Err(StorageError::Full { .. })
        ));
    }
}
