//! The indexes of vector codes: 4 bits for each component, scanned for every search (TurboQuant, arXiv 2504.19874).
//!
//! A scan of codes finds candidates, whose exact vectors are then read from the passages: the best 100 of a million are among the best
//! 150 by code. A tenant has a file of its own, `codes/<tenant number>.tv`, so a search costs nothing for passages of other tenants. A
//! file takes about 450 KB beside 200 bytes for each passage of 384 dimensions, so tenants with few passages have none
//! ([`MAX_SCANNED_PASSAGES`](super::hybrid_search::MAX_SCANNED_PASSAGES)). Open files are kept in memory.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use turbovec::{IdMapIndex, SearchError};
use weir_core::StorageError;

use super::index_errors::INDEX_NAME;
use super::passage_database::{PassageNumber, TenantNumber};
use crate::data_folder::create_private_folder;
use crate::path_with_public_name::PathWithPublicName;

/// Bits of a component's code.
const CODE_BITS: usize = 4;
/// The number of dimensions must be a multiple of this number. Zeros are added.
const DIMENSIONS_MULTIPLE: usize = 8;

/// The codes of all tenants that have any.
pub(super) struct CodeIndexes {
    folder: PathBuf,
    dimensions: usize,
    open: Mutex<HashMap<TenantNumber, Arc<CodeIndex>>>,
}

/// The codes of one tenant.
pub(super) struct CodeIndex {
    index: RwLock<IdMapIndex>,
    location: PathWithPublicName,
    /// The number of components of a code, which may be more than those of a vector.
    dimensions: usize,
}

impl CodeIndexes {
    /// Opens the folder of the codes of vectors with this number of dimensions, and creates it if it does not exist.
    pub(super) fn open_or_create(folder: PathBuf, dimensions: usize) -> Result<Self, StorageError> {
        create_private_folder(&folder)?;
        Ok(Self {
            folder,
            dimensions: dimensions.next_multiple_of(DIMENSIONS_MULTIPLE),
            open: Mutex::default(),
        })
    }

    /// Returns the codes of a tenant if they are open.
    pub(super) fn find_open(&self, tenant: TenantNumber) -> Option<Arc<CodeIndex>> {
        self.open.lock().get(&tenant).cloned()
    }

    /// Returns the codes of a tenant, and opens their file first if they are not open. Returns `None` if there is no file or if it is
    /// damaged: the codes can be computed again.
    pub(super) fn open(&self, tenant: TenantNumber) -> Option<Arc<CodeIndex>> {
        if let Some(open) = self.find_open(tenant) {
            return Some(open);
        }
        let file = self.file_of(tenant);
        let index = match IdMapIndex::load(&file) {
            Ok(index) if index.dim_opt() == Some(self.dimensions) => index,
            Ok(_) => return None,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %file.display(), %error, "the codes of a tenant are computed again: their file is damaged");
                return None;
            }
        };
        Some(self.insert(tenant, self.with_location(tenant, index)))
    }

    /// Returns empty codes for a tenant, which are not open. They replace an earlier file when they are saved.
    pub(super) fn create(&self, tenant: TenantNumber) -> Result<CodeIndex, StorageError> {
        let location = file_with_error_name(&self.file_of(tenant));
        let index = IdMapIndex::new(self.dimensions, CODE_BITS).map_err(|e| location.failed_error(e))?;
        Ok(self.with_location(tenant, index))
    }

    fn with_location(&self, tenant: TenantNumber, index: IdMapIndex) -> CodeIndex {
        CodeIndex {
            index: RwLock::new(index),
            location: file_with_error_name(&self.file_of(tenant)),
            dimensions: self.dimensions,
        }
    }

    /// Opens the codes of a tenant for searches.
    pub(super) fn insert(&self, tenant: TenantNumber, codes: CodeIndex) -> Arc<CodeIndex> {
        let codes = Arc::new(codes);
        self.open.lock().insert(tenant, Arc::clone(&codes));
        codes
    }

    /// Closes all codes, which may have changes that are not saved.
    pub(super) fn close_all(&self) {
        self.open.lock().clear();
    }

    /// Removes the codes of a tenant and their file, if there are any.
    pub(super) fn remove(&self, tenant: TenantNumber) -> Result<(), StorageError> {
        self.open.lock().remove(&tenant);
        let file = self.file_of(tenant);
        match fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(file_with_error_name(&file).io_error(&e)),
            _ => Ok(()),
        }
    }

    /// Removes the codes of all tenants.
    pub(super) fn remove_all(&self) -> Result<(), StorageError> {
        self.open.lock().clear();
        let removed = fs::remove_dir_all(&self.folder);
        removed.map_err(|e| file_with_error_name(&self.folder).io_error(&e))?;
        create_private_folder(&self.folder)
    }

    fn file_of(&self, tenant: TenantNumber) -> PathBuf {
        self.folder.join(format!("{tenant}.tv"))
    }
}

impl CodeIndex {
    pub(super) fn count(&self) -> usize {
        self.index.read().len()
    }

    /// Adds the codes of vectors, except those of passages that it has already.
    pub(super) fn add(&self, vectors: &[(PassageNumber, Vec<f32>)]) -> Result<(), StorageError> {
        let mut index = self.index.write();
        let (mut ids, mut values) = (Vec::with_capacity(vectors.len()), Vec::new());
        for (number, vector) in vectors {
            let id = number.cast_unsigned();
            if index.contains(id) {
                continue;
            }
            ids.push(id);
            values.extend(
                vector
                    .iter()
                    .copied()
                    .chain(std::iter::repeat(0.0))
                    .take(self.dimensions),
            );
        }
        if ids.is_empty() {
            return Ok(());
        }
        index
            .add_with_ids_2d(&values, self.dimensions, &ids)
            .map_err(|e| self.location.failed_error(e))
    }

    /// Removes the codes of passages, as far as it has them.
    pub(super) fn remove(&self, numbers: &[PassageNumber]) {
        let mut index = self.index.write();
        for number in numbers {
            index.remove(number.cast_unsigned());
        }
    }

    /// Writes the changes to the file. They are durable when the call returns.
    pub(super) fn save(&self) -> Result<(), StorageError> {
        let saved = self.index.write().sync(self.location.path());
        saved.map_err(|e| self.location.io_error(&e))
    }

    /// Returns about the `limit` passages nearest to a query, in no order; with `allowed`, which is not empty, only of these.
    pub(super) fn find_nearest(
        &self,
        query: &[f32],
        limit: usize,
        allowed: Option<&[PassageNumber]>,
    ) -> Result<Vec<PassageNumber>, StorageError> {
        let query: Vec<f32> = query
            .iter()
            .copied()
            .chain(std::iter::repeat(0.0))
            .take(self.dimensions)
            .collect();
        let index = self.index.read();
        let mut allowed: Option<Vec<u64>> =
            allowed.map(|numbers| numbers.iter().map(|number| number.cast_unsigned()).collect());
        let mut found = index.try_search_with_allowlist(&query, limit, allowed.as_deref());
        if let (Err(SearchError::UnknownId(_)), Some(allowed)) = (&found, &mut allowed) {
            // A passage was removed since the list was made.
            allowed.retain(|id| index.contains(*id));
            if allowed.is_empty() {
                return Ok(Vec::new());
            }
            found = index.try_search_with_allowlist(&query, limit, Some(allowed));
        }
        let found = found.map_err(|e| self.location.failed_error(e))?;
        Ok(found.ids.into_iter().map(u64::cast_signed).collect())
    }
}

fn file_with_error_name(file: &Path) -> PathWithPublicName {
    PathWithPublicName::new(INDEX_NAME, file)
}
