//! What a job is asked to do.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use weir_core::manifest::Pipeline;
use weir_core::{PageNumber, TenantId};

/// What a job is to do.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Whose it is.
    pub tenant: TenantId,
    /// What decides, at one revision from beginning to end.
    pub pipeline: Arc<Pipeline>,
    /// The files.
    pub documents: Vec<DocumentSpec>,
    /// Whether pages that are done already are done again.
    pub force: bool,
}

/// A file to ingest.
#[derive(Clone)]
pub struct DocumentSpec {
    /// The file.
    pub path: PathBuf,
    /// What it is called in events and answers.
    pub name: String,
    /// Its password, if it is encrypted.
    pub password: Option<String>,
    /// Pages wanted; all if `None`. What lies beyond the last page is left out.
    pub pages: Option<RangeInclusive<PageNumber>>,
}

impl DocumentSpec {
    /// All pages of a file, called by its file name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            path,
            password: None,
            pages: None,
        }
    }
}

impl std::fmt::Debug for DocumentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DocumentSpec")
            .field("path", &self.path)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}
