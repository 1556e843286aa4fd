//! Blobs that are written and not yet known to survive a power cut.
//!
//! When the kernel cannot write a page of a file it says so once, to the next sync through a descriptor that was open at the
//! time, and takes the page for written. A later sync, or one through a descriptor that was opened afterwards, succeeds over
//! lost data. So the descriptor that a blob was written through is kept until it is synced. A blob whose sync failed is
//! written again as another file before any flush succeeds; its bytes are read through the descriptor, and their hash says
//! whether they are what was put.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A blob that is owed a sync.
pub(super) struct Written {
    file: File,
    hash: u64,
    /// A sync failed, so another one would say nothing.
    pub(super) is_damaged: bool,
}

/// How a file is synced; tests have it fail.
pub(super) type SyncFile = dyn Fn(&File) -> io::Result<()> + Send + Sync;

/// The blobs that are owed a sync, by path.
#[derive(Default)]
pub(super) struct Unsynced {
    pub(super) files: BTreeMap<PathBuf, Written>,
    hasher: RandomState,
}

impl Unsynced {
    /// The file has these bytes.
    pub(super) fn written(&self, file: File, bytes: &[u8]) -> Written {
        Written {
            file,
            hash: self.hasher.hash_one(bytes),
            is_damaged: false,
        }
    }

    pub(super) fn hasher(&self) -> RandomState {
        self.hasher.clone()
    }
}

impl Written {
    /// Syncs the file at `path`. If that fails, now or before, it is damaged.
    pub(super) fn sync(&mut self, sync: &SyncFile) -> io::Result<()> {
        if self.is_damaged {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let synced = sync(&self.file);
        self.is_damaged = synced.is_err();
        synced
    }

    /// Whether this is what `path` names: it may have been replaced or deleted since.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (ours, named) = (self.file.metadata()?, fs::symlink_metadata(path));
        match named {
            Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The bytes that were put.
    pub(super) fn bytes(&mut self, hasher: &RandomState) -> io::Result<Vec<u8>> {
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

    /// The same bytes are in another file, which is synced.
    pub(super) fn replace(&mut self, file: File) {
        self.file = file;
        self.is_damaged = false;
    }
}
