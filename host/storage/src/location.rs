//! Where things lie, as the log says it, and what errors call them.
//!
//! Tenants read this crate's errors in events and answers. So an error names what was touched, and only the log has its path.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use weir_core::StorageError;

/// A file or folder of the data folder, with its name in errors.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    name: String,
    path: PathBuf,
}

impl Location {
    pub(crate) fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
        }
    }

    /// Something below the folder `root`, named after its `kind` and its path from there.
    pub(crate) fn below(root: &Path, kind: &str, path: &Path) -> Self {
        let rest = path.strip_prefix(root).unwrap_or(Path::new(""));
        let name = if rest.as_os_str().is_empty() {
            format!("the folder of each {kind}")
        } else {
            format!("{kind} {}", rest.display())
        };
        Self::new(name, path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The error of an I/O call.
    pub(crate) fn io(&self, error: &io::Error) -> StorageError {
        self.logged(StorageError::io(&self.name, error))
    }

    /// [`StorageError::Failed`] for a reason that may be a library's own words.
    pub(crate) fn failed(&self, reason: impl Display) -> StorageError {
        self.logged(StorageError::Failed {
            what: self.name.clone(),
            reason: self.without_path(reason),
        })
    }

    /// [`StorageError::Damaged`] for a reason that may be a library's own words.
    pub(crate) fn damaged(&self, reason: impl Display) -> StorageError {
        self.logged(StorageError::Damaged {
            what: self.name.clone(),
            reason: self.without_path(reason),
        })
    }

    /// [`StorageError::Denied`] for a reason that may be a library's own words.
    pub(crate) fn denied(&self, reason: impl Display) -> StorageError {
        self.logged(StorageError::Denied {
            what: self.name.clone(),
            reason: self.without_path(reason),
        })
    }

    /// [`StorageError::Full`].
    pub(crate) fn full(&self) -> StorageError {
        StorageError::Full {
            what: self.name.clone(),
        }
    }

    /// [`StorageError::InUse`].
    pub(crate) fn in_use(&self) -> StorageError {
        StorageError::InUse {
            what: self.name.clone(),
        }
    }

    /// [`StorageError::Missing`].
    pub(crate) fn missing(&self) -> StorageError {
        StorageError::Missing {
            what: self.name.clone(),
        }
    }

    fn without_path(&self, reason: impl Display) -> String {
        reason
            .to_string()
            .replace(&self.path.display().to_string(), &self.name)
    }

    /// A full disk is no fault of the file that was written last, so its path tells nothing.
    fn logged(&self, error: StorageError) -> StorageError {
        if !matches!(error, StorageError::Full { .. }) {
            tracing::warn!(path = %self.path.display(), %error, "storage failed");
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_name_and_not_the_path() {
        let ledger = Location::new("the ledger", "/srv/data/ledger.db");
        let blob = Location::below(
            Path::new("/srv/data/blobs"),
            "blob",
            Path::new("/srv/data/blobs/acme/a/1"),
        );
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        for error in [
            ledger.failed("unable to open database file: /srv/data/ledger.db"),
            ledger.damaged("/srv/data/ledger.db-wal is short"),
            ledger.denied("/srv/data/ledger.db is read-only"),
            ledger.io(&refused),
            blob.io(&refused),
            blob.full(),
        ] {
            assert!(!error.to_string().contains("/srv"), "{error}");
        }
        assert!(blob.full().to_string().contains("blob acme/a/1"));
    }
}
