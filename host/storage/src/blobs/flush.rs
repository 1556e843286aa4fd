//! Flushing: every blob that was put survives a power failure, or the flush fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::RandomState;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use parking_lot::Mutex;
use weir_core::StorageError;

use super::unsynced_blobs::UnsyncedBlob;
use super::{BlobFolder, blob_path_with_error_name, is_not_found};

/// Files that are synced in parallel.
const MAX_PARALLEL_SYNCS: usize = 8;

impl BlobFolder {
    /// Makes all changes durable. Returns whether another flush should follow, to remove the rest of deleted small blobs from the disk.
    pub(super) fn flush_unsynced_blobs(&self) -> Result<bool, StorageError> {
        let _flush_guard = self.flush_lock.lock();
        self.flush_files()?;
        self.small_blobs.lock_writer().flush()
    }

    fn flush_files(&self) -> Result<(), StorageError> {
        let (mut files, folders) = {
            let mut unsynced = self.unsynced.lock();
            let files = std::mem::take(&mut unsynced.blobs);
            (files, std::mem::take(&mut unsynced.folders))
        };
        if files.is_empty() && folders.is_empty() {
            return Ok(());
        }
        let synced = self.sync_blobs_and_folders(&mut files, &folders);
        if synced.is_err() {
            // The next flush syncs these blobs, except those that were put again meanwhile.
            let mut unsynced = self.unsynced.lock();
            for (path, written) in files {
                unsynced.blobs.entry(path).or_insert(written);
            }
            unsynced.folders.extend(folders);
        }
        synced
    }

    fn sync_blobs_and_folders(
        &self,
        files: &mut BTreeMap<PathBuf, UnsyncedBlob>,
        changed_folders: &BTreeSet<PathBuf>,
    ) -> Result<(), StorageError> {
        let hasher = self.unsynced.lock().clone_hasher();
        let mut blobs_to_sync: Vec<(&PathBuf, &mut UnsyncedBlob)> = files.iter_mut().collect();
        run_in_parallel(&mut blobs_to_sync, |(path, written)| {
            let Err(error) = written.sync_file(&*self.sync_file) else {
                return Ok(());
            };
            let location = blob_path_with_error_name(&self.root, path);
            tracing::warn!(path = %path.display(), %error, "a blob could not be synced and is written to a new file");
            self.rewrite_blob(path, written, &hasher)
                .map_err(|e| location.io_error(&e))
        })?;
        let folders: BTreeSet<PathBuf> = files
            .keys()
            .flat_map(|path| {
                let above = path.ancestors().skip(1);
                above.take_while(|folder| folder.starts_with(&self.root))
            })
            .map(Path::to_owned)
            .chain(changed_folders.iter().cloned())
            .collect();
        let (mut folders, damaged) = (Vec::from_iter(folders), Mutex::new(Vec::new()));
        let synced = run_in_parallel(&mut folders, |folder| {
            match File::open(&*folder).and_then(|opened| (self.sync_file)(&opened)) {
                // The other errors mean that the folder has been deleted.
                Err(e) if !is_not_found(&e) => {
                    damaged.lock().push(folder.clone());
                    Err(blob_path_with_error_name(&self.root, folder).io_error(&e))
                }
                _ => Ok(()),
            }
        });
        // Rewriting the blobs of a folder also writes their folder entries again.
        for folder in damaged.into_inner() {
            let below = files.iter_mut().filter(|(path, _)| path.starts_with(&folder));
            below.for_each(|(_, written)| written.is_damaged = true);
        }
        synced
    }

    /// Writes a blob whose sync failed to a new file and syncs that. Does nothing if the blob was replaced or deleted since.
    fn rewrite_blob(&self, path: &Path, written: &mut UnsyncedBlob, hasher: &RandomState) -> io::Result<()> {
        if !written.is_file_at(path)? {
            return Ok(());
        }
        let (unfinished, file) = self.write_unfinished_file(&written.read_verified_bytes(hasher)?)?;
        let replaced = (self.sync_file)(&file).and_then(|()| {
            // Puts and deletes of this blob wait meanwhile.
            self.storage_usage.run_while_no_file_changes(|| {
                if written.is_file_at(path)? {
                    fs::rename(&unfinished, path)?;
                }
                Ok(())
            })
        });
        // Fails if the file was renamed.
        let _ = fs::remove_file(&unfinished);
        replaced.map(|()| written.replace_file(file))
    }
}

/// Runs `work` for all items on several threads and returns the first error. The file system's journal combines concurrent syncs into
/// one write. An error does not stop the work on the other items.
fn run_in_parallel<T: Send>(
    all: &mut [T],
    work: impl Fn(&mut T) -> Result<(), StorageError> + Sync,
) -> Result<(), StorageError> {
    let work_all = |items: &mut [T]| {
        let mut outcome = Ok(());
        for item in items {
            outcome = outcome.and(work(item));
        }
        outcome
    };
    thread::scope(|scope| {
        let chunk_len = all.len().div_ceil(MAX_PARALLEL_SYNCS).max(1);
        let work_all = &work_all;
        let working: Vec<_> = all
            .chunks_mut(chunk_len)
            .map(|chunk| thread::Builder::new().spawn_scoped(scope, move || work_all(chunk)))
            .collect();
        working.into_iter().try_for_each(|thread| {
            let thread = thread.map_err(|e| StorageError::from_io_error("flushing blobs", &e))?;
            thread.join().unwrap_or_else(|_| {
                Err(StorageError::Failed {
                    what: "flushing blobs".into(),
                    reason: "a thread panicked".into(),
                })
            })
        })
    })
}
