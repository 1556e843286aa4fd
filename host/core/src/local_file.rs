//! Files on this machine with the bytes of stored objects.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file on this machine with the bytes of an upload or a component, to be read and not changed.
///
/// The file of a store on another machine is a copy in a cache. The cache does not remove it while a clone of this value exists.
#[derive(Clone)]
pub struct LocalFile {
    path: PathBuf,
    /// Dropped with the last clone. `None` if the file needs no owner.
    _lease: Option<Arc<dyn Any + Send + Sync>>,
}

impl LocalFile {
    /// Creates a reference to a cached copy. `lease` is dropped when the last clone is dropped.
    pub fn with_lease(path: PathBuf, lease: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            path,
            _lease: Some(lease),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<PathBuf> for LocalFile {
    fn from(path: PathBuf) -> Self {
        Self { path, _lease: None }
    }
}

impl AsRef<Path> for LocalFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl PartialEq for LocalFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for LocalFile {}
