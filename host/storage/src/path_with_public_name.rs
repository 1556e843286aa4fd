//! Paths with the names that errors use for them.
//!
//! Tenants read this crate's errors in events and responses. So an error contains a name, and only the log contains the path.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use weir_core::StorageError;

/// A file or folder of the data folder, with its name in errors.
#[derive(Debug, Clone)]
pub(crate) struct PathWithPublicName {
    name: String,
    path: PathBuf,
}

impl PathWithPublicName {
    pub(crate) fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
        }
    }

    /// Names a path below the folder `root` by `kind` and by its path relative to `root`.
    pub(crate) fn from_path_below_root(root: &Path, kind: &str, path: &Path) -> Self {
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

    /// Converts an I/O error.
    pub(crate) fn io_error(&self, error: &io::Error) -> StorageError {
        self.log_error_with_path(StorageError::from_io_error(&self.name, error))
    }

    /// Returns [`StorageError::Failed`]. `reason` may be a library's message that contains the path.
    pub(crate) fn failed_error(&self, reason: impl Display) -> StorageError {
        self.log_error_with_path(StorageError::Failed {
            what: self.name.clone(),
            reason: self.replace_path_by_name(reason),
        })
    }

    /// Returns [`StorageError::Damaged`]. `reason` may be a library's message that contains the path.
    pub(crate) fn damaged_error(&self, reason: impl Display) -> StorageError {
        self.log_error_with_path(StorageError::Damaged {
            what: self.name.clone(),
            reason: self.replace_path_by_name(reason),
        })
    }

    /// Returns [`StorageError::PermissionDenied`]. `reason` may be a library's message that contains the path.
    pub(crate) fn permission_denied_error(&self, reason: impl Display) -> StorageError {
        self.log_error_with_path(StorageError::PermissionDenied {
            what: self.name.clone(),
            reason: self.replace_path_by_name(reason),
        })
    }

    /// Returns [`StorageError::NoSpace`].
    pub(crate) fn no_space_error(&self) -> StorageError {
        StorageError::NoSpace {
            what: self.name.clone(),
        }
    }

    /// Returns [`StorageError::InUse`].
    pub(crate) fn in_use_error(&self) -> StorageError {
        StorageError::InUse {
            what: self.name.clone(),
        }
    }

    /// Returns [`StorageError::NotFound`].
    pub(crate) fn not_found_error(&self) -> StorageError {
        StorageError::NotFound {
            what: self.name.clone(),
        }
    }

    fn replace_path_by_name(&self, reason: impl Display) -> String {
        reason
            .to_string()
            .replace(&self.path.display().to_string(), &self.name)
    }

    /// Logs an error with the path. A full disk is not logged: it is not the fault of this file.
    fn log_error_with_path(&self, error: StorageError) -> StorageError {
        if !matches!(error, StorageError::NoSpace { .. }) {
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
        let ledger = PathWithPublicName::new("the ledger", "/srv/data/ledger.db");
        let blob = PathWithPublicName::from_path_below_root(
            Path::new("/srv/data/blobs"),
            "blob",
            Path::new("/srv/data/blobs/acme/a/1"),
        );
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        for error in [
            ledger.failed_error("unable to open database file: /srv/data/ledger.db"),
            ledger.damaged_error("/srv/data/ledger.db-wal is short"),
            ledger.permission_denied_error("/srv/data/ledger.db is read-only"),
            ledger.io_error(&refused),
            blob.io_error(&refused),
            blob.no_space_error(),
        ] {
            assert!(!error.to_string().contains("/srv"), "{error}");
        }
        assert!(blob.no_space_error().to_string().contains("blob acme/a/1"));
    }
}
