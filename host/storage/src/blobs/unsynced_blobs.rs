//! Blobs that are written but not synced.
//!
//! When the kernel cannot write a page of a file, it reports the error once, to the next sync through a descriptor that was open at the
//! time. Then it treats the page as written. A later sync, or a sync through a descriptor that was opened afterwards, succeeds although
//! data is lost. So the descriptor through which a blob was written stays open until the blob is synced. A blob whose sync failed is
//! written to a new file before any flush succeeds. Its bytes are read through the old descriptor, and a hash shows whether they are the
//! bytes that were put.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A blob that has to be synced.
pub(super) struct UnsyncedBlob {
    file: File,
    hash: u64,
    /// A sync failed. Another sync of the same file would prove nothing.
    pub(super) is_damaged: bool,
}

/// The function that syncs a file. Tests replace it by one that fails.
pub(super) type SyncFileFn = dyn Fn(&File) -> io::Result<()> + Send + Sync;

/// The blobs that have to be synced, by path.
#[derive(Default)]
pub(super) struct UnsyncedBlobs {
    pub(super) blobs: BTreeMap<PathBuf, UnsyncedBlob>,
    /// Folders from which files were deleted: a file could come back after a power failure.
    pub(super) folders: BTreeSet<PathBuf>,
    hasher: RandomState,
}

impl UnsyncedBlobs {
    /// Creates the entry of a newly written file with these bytes. Does not add it to the blobs.
    pub(super) fn new_unsynced_blob(&self, file: File, bytes: &[u8]) -> UnsyncedBlob {
        UnsyncedBlob {
            file,
            hash: self.hasher.hash_one(bytes),
            is_damaged: false,
        }
    }

    pub(super) fn clone_hasher(&self) -> RandomState {
        self.hasher.clone()
    }
}

impl UnsyncedBlob {
    /// Syncs the file. Fails if this sync or an earlier one failed.
    pub(super) fn sync_file(&mut self, sync: &SyncFileFn) -> io::Result<()> {
        if self.is_damaged {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let synced = sync(&self.file);
        self.is_damaged = synced.is_err();
        synced
    }

    /// Returns whether `path` still names this file. The blob may have been replaced or deleted since.
    pub(super) fn is_file_at(&self, path: &Path) -> io::Result<bool> {
        let (own_metadata, path_metadata) = (self.file.metadata()?, fs::symlink_metadata(path));
        match path_metadata {
            Ok(named) => Ok((named.dev(), named.ino()) == (own_metadata.dev(), own_metadata.ino())),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads the bytes of the blob, and fails if they are not the bytes that were put.
    pub(super) fn read_verified_bytes(&mut self, hasher: &RandomState) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        if hasher.hash_one(bytes.as_slice()) == self.hash {
            Ok(bytes)
        } else {
            let reason = "its bytes are lost: it must be put again";
            Err(io::Error::new(ErrorKind::InvalidData, reason))
        }
    }

    /// Replaces the file by a synced one with the same bytes.
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
        self.is_damaged = false;
    }
}
