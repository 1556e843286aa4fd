//! Compiled components on disk, by digest of the component and by what the code must fit.
//!
//! Wasmtime checks that a file fits its version and settings but takes the machine code in it on trust. So a file carries a
//! checksum of itself as its last 32 bytes, and one that is damaged counts as not there. The ELF file in front is not
//! bothered by what follows it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use wasmtime::Engine;
use wasmtime::component::Component;
use weir_core::PolicyError;

use crate::engine::compatibility;

/// Bytes of the checksum behind the code.
pub(super) const CHECKSUM: usize = 32;

/// Files of this folder that have no name yet.
const TEMPORARY: &str = ".compiling-";

pub(super) struct Cache {
    folder: PathBuf,
    fits: u64,
}

impl Cache {
    /// Opens the folder, making it if need be, and makes it private.
    pub(super) fn open(folder: &Path, engine: &Engine) -> Result<Self, PolicyError> {
        private(folder).map_err(|e| PolicyError::Unusable {
            component: "any".into(),
            reason: format!(
                "the folder {} for compiled components cannot be used: {e}",
                folder.display()
            ),
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            fits: compatibility(engine),
        })
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        self.folder.join(format!("{hex}-{:016x}.cwasm", self.fits))
    }

    /// Loads a compiled component; `None` if there is none or it is damaged.
    pub(super) fn load(&self, engine: &Engine, digest: &[u8; 32]) -> Option<Component> {
        let path = self.path(digest);
        let bytes = fs::read(&path).ok()?;
        let loaded = if has_checksum(&bytes) {
            super::mapped::component(engine, &path).map_err(|e| format!("{e:#}").replace('\n', " "))
        } else {
            Err("its checksum is wrong".into())
        };
        loaded
            .inspect_err(|reason| {
                tracing::warn!(file = %path.display(), reason, "a compiled component is damaged and is compiled again");
            })
            .ok()
    }

    /// A new file in the folder, removed unless it is kept.
    pub(super) fn temporary(&self) -> io::Result<TempPath> {
        tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.folder)
            .map(tempfile::NamedTempFile::into_temp_path)
    }

    /// Gives a finished file its name.
    pub(super) fn keep(&self, digest: &[u8; 32], finished: TempPath) -> io::Result<()> {
        File::open(&finished)?.sync_all()?;
        finished.persist(self.path(digest)).map_err(|e| e.error)
    }
}

fn has_checksum(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<CHECKSUM>()
        .is_some_and(|(code, sum)| <[u8; CHECKSUM]>::from(Sha256::digest(code)) == *sum)
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

    #[test]
    fn a_checksum_covers_every_byte() {
        let mut bytes = b"code".to_vec();
        bytes.extend_from_slice(&Sha256::digest(b"code"));
        assert!(has_checksum(&bytes));
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert!(!has_checksum(&damaged), "byte {i}");
        }
        assert!(!has_checksum(b"short"));
    }
}
