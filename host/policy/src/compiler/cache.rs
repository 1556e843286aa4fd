//! On-disk LRU cache of compiled components, keyed by the component's digest and the engine's compatibility hash.
//!
//! Wasmtime checks that a file fits its version and settings but trusts the machine code in it. So each file ends with a
//! checksum of its content, and a damaged file counts as missing. The loader ignores the checksum, because it follows the end
//! of the ELF file. A file that this process has verified is not read again until it is written to; only the pages that are
//! used are read.
//!
//! The checksum detects damage, not attacks: a user who can write to the folder controls this process anyway. So it must be
//! fast rather than hard to forge. A component that contains an interpreter has 40 MB of code. XXH3 runs at memory speed, while
//! SHA-256 would take longer than the rest of a cold start.
//!
//! The folder has a byte limit. A new file evicts the files that were loaded the longest ago and are not in use in this
//! process. A file in use stays, because keeping it mapped costs nothing and compiling it again costs much. The time of the
//! last load is the modification time of the file, so it survives a restart.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use tempfile::TempPath;
use wasmtime::Engine;
use wasmtime::component::Component;
use weir_core::PolicyError;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::mapped_component::map_compiled_component;
use crate::wasm_engine::compatibility_hash;

/// Prefix of temporary files in the folder.
const TEMPORARY_PREFIX: &str = ".compiling-";

/// Age from which a temporary file is removed, because the process that created it is gone.
const ABANDONED_AGE: Duration = Duration::from_secs(86_400);

/// Length of the checksum.
const CHECKSUM_BYTES: usize = 16;

pub(super) struct CompiledCodeCache {
    folder: PathBuf,
    compatibility_hash: u64,
    max_bytes: u64,
    files: Mutex<HashMap<PathBuf, CachedFile>>,
}

/// A compiled component in the folder.
struct CachedFile {
    bytes: u64,
    last_used: SystemTime,
    /// Whether the checksum was right at the last use.
    is_verified: bool,
    /// Alive while the component is loaded in this process.
    guard: Weak<()>,
}

/// Marks a compiled file as in use. The cache does not evict the file while a clone exists.
pub(crate) type CacheFileInUseGuard = Arc<()>;

impl CompiledCodeCache {
    /// Opens the folder, creates it if it is missing, and makes it private. It may hold `most` bytes.
    pub(super) fn open_and_clean_folder(
        folder: &Path,
        byte_limit: u64,
        engine: &Engine,
    ) -> Result<Self, PolicyError> {
        let scanned_files = ensure_private_folder(folder)
            .and_then(|()| scan_and_clean_folder(folder))
            .map_err(|e| PolicyError::Unusable {
                component: "any".into(),
                reason: format!(
                    "cannot use the folder {} for compiled components: {e}",
                    folder.display()
                ),
            })?;
        let cache = Self {
            folder: folder.to_owned(),
            compatibility_hash: compatibility_hash(engine),
            max_bytes: byte_limit,
            files: Mutex::new(scanned_files),
        };
        cache.evict_least_recently_used_files();
        Ok(cache)
    }

    fn compiled_file_path(&self, digest: &[u8; 32]) -> PathBuf {
        let hex = HEXLOWER.encode(digest);
        self.folder
            .join(format!("{hex}-{:016x}.cwasm", self.compatibility_hash))
    }

    /// Loads a compiled component; `None` if the file is missing or damaged.
    pub(super) fn load_component(
        &self,
        engine: &Engine,
        digest: &[u8; 32],
    ) -> Option<(Component, CacheFileInUseGuard)> {
        // Acquired before the file is read, so that the file is not evicted meanwhile.
        let file_guard = self.acquire_in_use_guard(digest);
        let path = self.compiled_file_path(digest);
        let file = File::open(&path).ok()?;
        let metadata = file.metadata().ok()?;
        let is_intact = self.is_still_verified(&path, &metadata)
            || has_valid_checksum(&file, metadata.len()).is_ok_and(|is_valid| is_valid);
        let loaded = if is_intact {
            map_compiled_component(engine, &path).map_err(|e| format!("{e:#}").replace('\n', " "))
        } else {
            Err("the checksum is wrong".into())
        };
        let component = loaded
            .inspect_err(|reason| {
                tracing::warn!(file = %path.display(), reason, "cannot load a compiled component, compiling it again");
            })
            .ok()?;
        self.mark_as_used(path, metadata.len(), true, &file_guard);
        Some((component, file_guard))
    }

    /// Whether a file was verified and has not been written to since.
    fn is_still_verified(&self, path: &Path, metadata: &Metadata) -> bool {
        let files = self.files.lock();
        let same = |file: &CachedFile| {
            file.bytes == metadata.len()
                && metadata
                    .modified()
                    .is_ok_and(|modified| modified == file.last_used)
        };
        files.get(path).is_some_and(|file| file.is_verified && same(file))
    }

    /// Returns the existing guard if the component is loaded, or a new one.
    fn acquire_in_use_guard(&self, digest: &[u8; 32]) -> CacheFileInUseGuard {
        let mut files = self.files.lock();
        let Some(file) = files.get_mut(&self.compiled_file_path(digest)) else {
            return CacheFileInUseGuard::default();
        };
        file.guard.upgrade().unwrap_or_else(|| {
            let new_guard = CacheFileInUseGuard::default();
            file.guard = Arc::downgrade(&new_guard);
            new_guard
        })
    }

    /// Sets the file's modification time to now, and stores its size, verification and guard in the index.
    fn mark_as_used(&self, path: PathBuf, bytes: u64, is_intact: bool, file_guard: &CacheFileInUseGuard) {
        let now = SystemTime::now();
        // If this fails, the next process takes the file for older, and this process verifies it once more.
        let _ = File::open(&path).and_then(|file| file.set_modified(now));
        let file = CachedFile {
            bytes,
            last_used: now,
            is_verified: is_intact,
            guard: Arc::downgrade(file_guard),
        };
        self.files.lock().insert(path, file);
    }

    /// Evicts the least recently used files until the folder is within its limit or all files are in use.
    fn evict_least_recently_used_files(&self) {
        let mut files = self.files.lock();
        let mut total_bytes: u64 = files.values().map(|file| file.bytes).sum();
        while total_bytes > self.max_bytes {
            let idle = files.iter().filter(|(_, file)| file.guard.strong_count() == 0);
            let Some(path) = idle
                .min_by_key(|(_, file)| file.last_used)
                .map(|(path, _)| path.clone())
            else {
                break;
            };
            if let Some(file) = files.remove(&path) {
                total_bytes = total_bytes.saturating_sub(file.bytes);
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "cannot remove a compiled component");
                }
                _ => tracing::debug!(file = %path.display(), "evicted a compiled component"),
            }
        }
    }

    /// Creates a temporary file in the folder. It is removed when the path is dropped, unless it is committed.
    pub(super) fn create_temporary_file(&self) -> io::Result<TempPath> {
        tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(&self.folder)
            .map(tempfile::NamedTempFile::into_temp_path)
    }

    /// Logs that the folder cannot be written and returns the reason for the tenant. The reason does not contain the path,
    /// which only operators may see.
    pub(super) fn log_and_describe_write_error(&self, error: &io::Error) -> String {
        tracing::warn!(folder = %self.folder.display(), %error, "cannot write a compiled component");
        format!("cannot write the cache of compiled components: {}", error.kind())
    }

    /// Moves a finished file to its final name and evicts others if the folder is full. The returned guard protects the new
    /// file until the component is loaded.
    pub(super) fn commit_file(
        &self,
        digest: &[u8; 32],
        finished: TempPath,
    ) -> io::Result<CacheFileInUseGuard> {
        let file = File::open(&finished)?;
        file.sync_all()?;
        let (bytes, path, file_guard) = (
            file.metadata()?.len(),
            self.compiled_file_path(digest),
            CacheFileInUseGuard::default(),
        );
        finished.persist(&path).map_err(|e| e.error)?;
        self.mark_as_used(path, bytes, false, &file_guard);
        self.evict_least_recently_used_files();
        Ok(file_guard)
    }
}

/// Computes the checksum that ends a file of compiled code.
pub(super) fn compute_checksum(code: &[u8]) -> [u8; CHECKSUM_BYTES] {
    xxh3_128(code).to_le_bytes()
}

/// Whether a file of `length` bytes ends with the checksum of the bytes before it.
fn has_valid_checksum(mut file: impl Read, length: u64) -> io::Result<bool> {
    let Some(code_bytes) = length.checked_sub(CHECKSUM_BYTES as u64) else {
        return Ok(false);
    };
    // Small enough to stay in the processor's cache until it is hashed.
    let mut buffer = vec![0; 64 << 10];
    let (mut sum, mut rest) = (Xxh3::new(), file.by_ref().take(code_bytes));
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            count => sum.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    let mut stored = [0; CHECKSUM_BYTES];
    file.read_exact(&mut stored)?;
    Ok(stored == sum.digest128().to_le_bytes())
}

/// Lists the compiled components in a folder, including those of other builds of Weir. Removes abandoned temporary files.
fn scan_and_clean_folder(folder: &Path) -> io::Result<HashMap<PathBuf, CachedFile>> {
    let mut files = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another process may have removed the file meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        let modified_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let path = entry.path();
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY_PREFIX.as_bytes())
        {
            if modified_at.elapsed().is_ok_and(|age| age > ABANDONED_AGE) {
                let _ = fs::remove_file(&path);
            }
        } else if path.extension().is_some_and(|end| end == "cwasm") {
            let file = CachedFile {
                bytes: metadata.len(),
                last_used: modified_at,
                is_verified: false,
                guard: Weak::new(),
            };
            files.insert(path, file);
        }
    }
    Ok(files)
}

/// Creates a folder that only this user can enter. Fails if the folder belongs to another user.
fn ensure_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::metadata(folder)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the folder belongs to another user",
        ));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_writable_folder_becomes_private() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        ensure_private_folder(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        ensure_private_folder(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn checksum_covers_every_byte() {
        let holds = |bytes: &[u8]| has_valid_checksum(bytes, bytes.len() as u64).unwrap_or(false);
        let code: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for code in [&code[..], b"code", b""] {
            let bytes = [code, &compute_checksum(code)].concat();
            assert!(holds(&bytes));
            for at in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(!holds(&damaged), "byte {at}");
            }
            assert!(!holds(&bytes[..bytes.len() - 1]));
        }
        assert!(!holds(b"short"));
    }
}
