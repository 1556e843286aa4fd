//! Compiled components on disk, by digest of the component and by what the code must fit.
//!
//! Wasmtime checks that a file fits its version and settings but takes the machine code in it on trust. So a file carries a
//! [checksum] of itself at its end, and one that is damaged counts as not there. The ELF file in front is not bothered by what
//! follows it. A file that was found whole by this process and not been written to since is not read again: only the pages
//! of it that are used are.
//!
//! The folder has room for so many bytes. When something new needs it, the file goes that was loaded the longest ago and that
//! nobody in this process has in memory: a file that is mapped costs nothing to keep mapped and much to compile again. When a
//! file was loaded last is its time of modification, so that it is known after a restart, too.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tempfile::TempPath;
use wasmtime::Engine;
use wasmtime::component::Component;
use weir_core::PolicyError;

use super::checksum;
use crate::engine::compatibility;

/// Files of this folder that have no name yet.
const TEMPORARY: &str = ".compiling-";

/// Age at which such a file has no process any more that will give it one.
const ABANDONED: Duration = Duration::from_secs(86_400);

pub(super) struct Cache {
    folder: PathBuf,
    fits: u64,
    most: u64,
    kept: Mutex<HashMap<PathBuf, Kept>>,
}

/// A file of the folder.
struct Kept {
    bytes: u64,
    used: SystemTime,
    /// Whether it was whole when it was last used.
    whole: bool,
    loaded: Weak<()>,
}

/// Whoever holds it has a component in memory, whose file therefore stays.
pub(crate) type Lease = Arc<()>;

impl Cache {
    /// Opens the folder, making it if need be, and makes it private. It may hold `most` bytes.
    pub(super) fn open(folder: &Path, most: u64, engine: &Engine) -> Result<Self, PolicyError> {
        let kept = private(folder)
            .and_then(|()| found(folder))
            .map_err(|e| PolicyError::Unusable {
                component: "any".into(),
                reason: format!(
                    "the folder {} for compiled components cannot be used: {e}",
                    folder.display()
                ),
            })?;
        let cache = Self {
            folder: folder.to_owned(),
            fits: compatibility(engine),
            most,
            kept: Mutex::new(kept),
        };
        cache.make_room();
        Ok(cache)
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        self.folder.join(format!("{hex}-{:016x}.cwasm", self.fits))
    }

    /// Loads a compiled component; `None` if there is none or it is damaged.
    pub(super) fn load(&self, engine: &Engine, digest: &[u8; 32]) -> Option<(Component, Lease)> {
        // Before it is read, so that nobody removes it in between.
        let lease = self.lease(digest);
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        let about = file.metadata().ok()?;
        let whole =
            self.was_whole(&path, &about) || checksum::holds(&file, about.len()).is_ok_and(|holds| holds);
        let loaded = if whole {
            super::mapped::component(engine, &path).map_err(|e| format!("{e:#}").replace('\n', " "))
        } else {
            Err("its checksum is wrong".into())
        };
        let component = loaded
            .inspect_err(|reason| {
                tracing::warn!(file = %path.display(), reason, "a compiled component is damaged and is compiled again");
            })
            .ok()?;
        self.touch(path, about.len(), true, &lease);
        Some((component, lease))
    }

    /// Whether a file was found whole, and is what it was then.
    fn was_whole(&self, path: &Path, about: &Metadata) -> bool {
        let kept = self.kept.lock();
        let same = |file: &Kept| {
            file.bytes == about.len() && about.modified().is_ok_and(|modified| modified == file.used)
        };
        kept.get(path).is_some_and(|file| file.whole && same(file))
    }

    /// That of whoever has it in memory already, or a new one.
    fn lease(&self, digest: &[u8; 32]) -> Lease {
        let mut kept = self.kept.lock();
        let Some(file) = kept.get_mut(&self.path(digest)) else {
            return Lease::default();
        };
        file.loaded.upgrade().unwrap_or_else(|| {
            let lease = Lease::default();
            file.loaded = Arc::downgrade(&lease);
            lease
        })
    }

    /// Notes that a file was used just now.
    fn touch(&self, path: PathBuf, bytes: u64, whole: bool, lease: &Lease) {
        let used = SystemTime::now();
        // Where it cannot be noted, the next process takes it for older, and this one reads it once more.
        let _ = File::open(&path).and_then(|file| file.set_modified(used));
        let file = Kept {
            bytes,
            used,
            whole,
            loaded: Arc::downgrade(lease),
        };
        self.kept.lock().insert(path, file);
    }

    /// Removes what was used the longest ago, until there are no more bytes than there may be or all of them are in use.
    fn make_room(&self) {
        let mut kept = self.kept.lock();
        let mut all: u64 = kept.values().map(|file| file.bytes).sum();
        while all > self.most {
            let idle = kept.iter().filter(|(_, file)| file.loaded.strong_count() == 0);
            let Some(path) = idle
                .min_by_key(|(_, file)| file.used)
                .map(|(path, _)| path.clone())
            else {
                break;
            };
            if let Some(file) = kept.remove(&path) {
                all = all.saturating_sub(file.bytes);
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "a compiled component cannot be removed");
                }
                _ => tracing::debug!(file = %path.display(), "a compiled component made room for others"),
            }
        }
    }

    /// A new file in the folder, removed unless it is kept.
    pub(super) fn temporary(&self) -> io::Result<TempPath> {
        tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.folder)
            .map(tempfile::NamedTempFile::into_temp_path)
    }

    /// Why the folder cannot be written. Tenants read it, so the path, which the error may name, goes to the log alone.
    pub(super) fn failed(&self, error: &io::Error) -> String {
        tracing::warn!(folder = %self.folder.display(), %error, "compiled components cannot be written");
        format!("its cache cannot be written: {}", error.kind())
    }

    /// Gives a finished file its name, and it the room of others if there is no other. Whoever is given the lease has it in
    /// memory soon.
    pub(super) fn keep(&self, digest: &[u8; 32], finished: TempPath) -> io::Result<Lease> {
        let file = File::open(&finished)?;
        file.sync_all()?;
        let (bytes, path, lease) = (file.metadata()?.len(), self.path(digest), Lease::default());
        finished.persist(&path).map_err(|e| e.error)?;
        self.touch(path, bytes, false, &lease);
        self.make_room();
        Ok(lease)
    }
}

/// The compiled components of a folder, of any build of Weir. What a process that was killed left half done is removed.
fn found(folder: &Path) -> io::Result<HashMap<PathBuf, Kept>> {
    let mut kept = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another process may have removed it by now.
        let Ok(about) = entry.metadata() else { continue };
        let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let path = entry.path();
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY.as_bytes())
        {
            if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(&path);
            }
        } else if path.extension().is_some_and(|end| end == "cwasm") {
            let file = Kept {
                bytes: about.len(),
                used,
                whole: false,
                loaded: Weak::new(),
            };
            kept.insert(path, file);
        }
    }
    Ok(kept)
}

/// Makes a folder that this user alone can enter. One that belongs to somebody else is refused.
fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::metadata(folder)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user",
        ));
    }
    if found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_others_could_write_becomes_private() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        private(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        private(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    }
}
