//! The shard and its folder: creation, opening for one embedding model, updates, flushes and the length of its log.
//!
//! This version of Qdrant's embedded engine has properties that the code must respect:
//!
//! - An update is applied in memory and appended to a log, and `flush` writes it to the segments. Opening a shard does *not* replay the
//!   log. So a crash loses updates that are not flushed, and only [`OpenVectorIndex::flush`] makes updates durable.
//! - The engine never truncates its log. Closed log files are not needed, except the last one: it continues the operation numbers, and
//!   without them the engine would ignore later updates as old ones. [`OpenVectorIndex::trim_log`] removes the others.
//! - `flush` and `drop` panic where other calls return an error, so every call goes through [`call_engine`].
//! - `optimize` keeps concurrent deletions in memory until its end and relies on the log to restore them after a crash. The log is not
//!   replayed, so a concurrent flush would return although deletions are not durable. So `optimize` runs alone. It builds no HNSW graph,
//!   which would block updates for minutes: all searches are exact scans of the tenant's passages.
//! - A removed point stays in the files of its segment and in the log. `compaction` rewrites the segments without removed points. It also
//!   fills the log, so that the log files with points are closed and can be removed. A marker file says that the shard needs a
//!   compaction, also after a crash.

mod compaction;

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use qdrant_edge::{
    Distance, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations,
    Modifier, OperationError, OperationResult, UpdateOperation, WalOptions,
};
use serde::{Deserialize, Serialize};
use weir_core::StorageError;

use super::passage_payload::{DENSE_VECTOR, SPARSE_VECTOR};
use super::shard_points::keys_index_request;
use crate::data_folder::{
    available_file_system_bytes, check_free_space, create_private_folder, sync_folder, sync_tree,
};
use crate::path_with_public_name::PathWithPublicName;

/// Bytes that must be free before a write: the files of the shard are sparse and written through memory maps (see
/// [`check_free_space`]).
const MIN_FREE_BYTES: u64 = 32 << 20;
/// Size of a log file, which the engine allocates at once.
const LOG_FILE_BYTES: usize = 8 << 20;
/// The folder where the engine builds segments. Its content is unfinished when the shard is opened.
const UNFINISHED_SEGMENTS: &str = "temp_segments";
/// The file with the [`IndexMetadata`]. It is written last, so it marks a finished shard.
const METADATA_FILE: &str = "weir.json";
/// The name of the shard in errors.
pub(super) const INDEX_NAME: &str = "the index";
/// The version of the payload and of the word splitting. An index of another version cannot be opened.
const FORMAT_VERSION: u32 = 2;

/// The format and the embedding model of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexMetadata {
    format: u32,
    pub(super) model: String,
    pub(super) dimensions: usize,
}

/// An open shard.
pub(super) struct OpenVectorIndex {
    location: PathWithPublicName,
    metadata: IndexMetadata,
    engine: Option<EdgeShard>,
    /// A flush failed. The kernel treats the lost pages as written, so a later flush would succeed although data is lost.
    has_flush_failed: AtomicBool,
}

impl OpenVectorIndex {
    /// Opens `<data>/vectors` and creates it if it does not exist. Fails if it was made for another model or format. Blocks on the disk.
    pub(super) fn open_or_create(data: &Path, model: &str, dimensions: usize) -> Result<Self, StorageError> {
        let folder = data.join("vectors");
        let metadata = IndexMetadata {
            format: FORMAT_VERSION,
            model: model.to_owned(),
            dimensions,
        };
        if !folder.exists() {
            create_shard(data, &folder, &metadata)?;
        }
        check_metadata(&folder, &read_metadata(&folder)?, &metadata)?;
        Self::load_shard(folder, metadata)
    }

    /// Returns whether `<data>/vectors` exists.
    pub(super) fn exists_in(data: &Path) -> bool {
        data.join("vectors").exists()
    }

    /// Opens `<data>/vectors` for the model that it was made for. Returns `None` if it does not exist. Blocks on the disk.
    pub(super) fn open_existing(data: &Path) -> Result<Option<Self>, StorageError> {
        let folder = data.join("vectors");
        if !folder.exists() {
            return Ok(None);
        }
        let found = read_metadata(&folder)?;
        let metadata = IndexMetadata {
            format: FORMAT_VERSION,
            ..found.clone()
        };
        check_metadata(&folder, &found, &metadata)?;
        Self::load_shard(folder, metadata).map(Some)
    }

    fn load_shard(path: PathBuf, metadata: IndexMetadata) -> Result<Self, StorageError> {
        let mut shard = Self {
            location: index_path_with_error_name(path),
            metadata,
            engine: None,
            has_flush_failed: AtomicBool::new(false),
        };
        shard.trim_log()?;
        let unfinished = shard.location.path().join(UNFINISHED_SEGMENTS);
        match fs::remove_dir_all(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(index_path_with_error_name(unfinished).io_error(&e));
            }
            _ => {}
        }
        shard.engine = Some(call_engine(&shard.location, || {
            EdgeShard::load(shard.location.path(), None)
        })?);
        Ok(shard)
    }

    pub(super) const fn metadata(&self) -> &IndexMetadata {
        &self.metadata
    }

    /// Runs `work` with the engine and converts its errors and panics.
    pub(super) fn call_open_engine<R>(
        &self,
        work: impl FnOnce(&EdgeShard) -> OperationResult<R>,
    ) -> Result<R, StorageError> {
        match &self.engine {
            Some(edge) => call_engine(&self.location, || work(edge)),
            None => Err(self.location.failed_error("the shard is not open")),
        }
    }

    /// Applies an update of about `bytes` bytes. The caller runs one update at a time, and none during [`OpenVectorIndex::flush`].
    pub(super) fn apply_update(&self, change: UpdateOperation, bytes: u64) -> Result<(), StorageError> {
        self.check_no_failed_flush()?;
        check_free_space(&self.location, MIN_FREE_BYTES + 4 * bytes)?;
        self.call_open_engine(|edge| edge.update(change))
    }

    /// Makes all updates durable. After a failure, every flush and update fails until the shard is opened again.
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.flush_with_function(|edge| {
            edge.flush();
        })
    }

    fn flush_with_function(&self, flush: impl FnOnce(&EdgeShard)) -> Result<(), StorageError> {
        self.check_no_failed_flush()?;
        check_free_space(&self.location, MIN_FREE_BYTES)?;
        let flushed = self.call_open_engine(|edge| {
            flush(edge);
            Ok(())
        });
        flushed.inspect_err(|_| self.has_flush_failed.store(true, Ordering::Relaxed))?;
        self.trim_log()
    }

    fn check_no_failed_flush(&self) -> Result<(), StorageError> {
        if self.has_flush_failed.load(Ordering::Relaxed) {
            let reason =
                "it could not be written to the disk: restart weir, which then repeats the lost updates";
            return Err(self.location.failed_error(reason));
        }
        Ok(())
    }

    /// Removes the closed log files except the last. For the engine, open or not, this is the same as a truncation of the log.
    fn trim_log(&self) -> Result<(), StorageError> {
        let log = self.location.path().join("wal");
        let failed = |e: std::io::Error| index_path_with_error_name(&log).io_error(&e);
        let mut closed = Vec::new();
        for entry in fs::read_dir(&log).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let start = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix("closed-")?.parse::<u64>().ok());
            closed.extend(start.map(|start| (start, entry.path())));
        }
        closed.sort_unstable();
        closed.pop();
        // Oldest first, so that a crash leaves no gap.
        closed
            .into_iter()
            .try_for_each(|(_, file)| fs::remove_file(file).map_err(failed))
    }
}

impl Drop for OpenVectorIndex {
    fn drop(&mut self) {
        let Some(edge) = self.engine.take() else { return };
        // Dropping the engine flushes. Without free space the flush may panic or, because of the memory maps, kill the process. Updates
        // that are not flushed are not durable anyway, so without free space the engine is leaked.
        let closed = match check_free_space(&self.location, MIN_FREE_BYTES) {
            Ok(()) => catch_unwind(AssertUnwindSafe(|| drop(edge))).is_ok(),
            Err(_) => {
                std::mem::forget(edge);
                false
            }
        };
        if !closed {
            tracing::error!(index = %self.location.path().display(), "the index could not be flushed on close");
        }
    }
}

/// Creates a shard under a temporary name and renames it into place.
fn create_shard(data: &Path, folder: &Path, metadata: &IndexMetadata) -> Result<(), StorageError> {
    let unfinished = data.join("vectors.unfinished");
    let location = index_path_with_error_name(&unfinished);
    let io = |e: std::io::Error| location.io_error(&e);
    match fs::remove_dir_all(&unfinished) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    check_free_space(&index_path_with_error_name(data), 2 * MIN_FREE_BYTES)?;
    create_private_folder(&unfinished)?;
    let shard = OpenVectorIndex {
        engine: Some(call_engine(&location, || {
            EdgeShard::new(&unfinished, shard_config(metadata.dimensions))
        })?),
        location: location.clone(),
        metadata: metadata.clone(),
        has_flush_failed: AtomicBool::new(false),
    };
    let index = FieldIndexOperations::CreateIndex(keys_index_request());
    shard.apply_update(UpdateOperation::FieldIndexOperation(index), 0)?;
    shard.flush()?;
    drop(shard);
    let metadata_json = serde_json::to_vec_pretty(metadata).map_err(|e| io(e.into()))?;
    fs::write(unfinished.join(METADATA_FILE), metadata_json).map_err(io)?;
    sync_tree(&unfinished).map_err(io)?;
    fs::rename(&unfinished, folder).map_err(io)?;
    sync_folder(data).map_err(io)
}

fn shard_config(dimensions: usize) -> EdgeConfig {
    EdgeConfig::builder()
        .on_disk_payload(true)
        .vector(
            DENSE_VECTOR,
            EdgeVectorParams::builder(dimensions, Distance::Cosine).build(),
        )
        .sparse_vector(
            SPARSE_VECTOR,
            EdgeSparseVectorParams::builder().modifier(Modifier::Idf).build(),
        )
        .wal_options(WalOptions {
            segment_capacity: LOG_FILE_BYTES,
            ..WalOptions::default()
        })
        .build()
}

/// Reads the metadata of the shard in `folder`.
fn read_metadata(folder: &Path) -> Result<IndexMetadata, StorageError> {
    let file = folder.join(METADATA_FILE);
    let location = PathWithPublicName::new(format!("{METADATA_FILE} of {INDEX_NAME}"), &file);
    let found = match fs::read(&file) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(location.damaged_error(
                "it is missing: remove the folder `vectors` of the data folder and ingest the documents again with --force",
            ));
        }
        Err(e) => return Err(location.io_error(&e)),
    };
    serde_json::from_slice(&found).map_err(|e| location.damaged_error(e))
}

fn check_metadata(
    folder: &Path,
    found: &IndexMetadata,
    expected: &IndexMetadata,
) -> Result<(), StorageError> {
    if found == expected {
        return Ok(());
    }
    if found.format != expected.format {
        return Err(index_path_with_error_name(folder).failed_error(
            "it was made by another version of weir: use that version, or another folder with --data",
        ));
    }
    Err(index_path_with_error_name(folder).failed_error(format_args!(
        "its vectors are of model {} ({} dimensions) and cannot be compared with those of {} ({}): set that model again, or \
         ingest the documents into another folder with --data",
        found.model, found.dimensions, expected.model, expected.dimensions
    )))
}

/// Calls the engine and converts its errors and panics.
fn call_engine<R>(
    location: &PathWithPublicName,
    work: impl FnOnce() -> OperationResult<R>,
) -> Result<R, StorageError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(OperationError::InconsistentStorage { description })) => {
            Err(location.damaged_error(remove_backtrace(&description)))
        }
        Ok(Err(error)) => Err(to_storage_error(location, &error.to_string())),
        Err(panic) => {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("the engine panicked");
            Err(to_storage_error(location, reason))
        }
    }
}

/// Converts an error of the engine, which contains errors of the system as text only.
fn to_storage_error(location: &PathWithPublicName, reason: &str) -> StorageError {
    if reason.contains("WouldBlock") {
        location.in_use_error()
    } else if ["StorageFull", "No space left", "os error 28"]
        .iter()
        .any(|s| reason.contains(s))
        || available_file_system_bytes(location.path()).is_some_and(|free| free < 1 << 20)
    {
        location.no_space_error()
    } else {
        location.failed_error(remove_backtrace(reason))
    }
}

fn index_path_with_error_name(folder: impl Into<PathBuf>) -> PathWithPublicName {
    PathWithPublicName::new(INDEX_NAME, folder)
}

/// Removes the backtrace that the engine's errors may contain, and all line breaks.
fn remove_backtrace(text: &str) -> String {
    let text = text.split(", backtrace: ").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_flush_is_final_until_the_shard_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let shard = OpenVectorIndex::open_or_create(dir.path(), "model", 4).unwrap();
        shard.flush().unwrap();
        let failed = shard.flush_with_function(|_| panic!("Input/output error (os error 5)"));
        assert!(failed.unwrap_err().to_string().contains("os error 5"));
        let index =
            || UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(keys_index_request()));
        for refused in [shard.flush(), shard.apply_update(index(), 0)] {
            assert!(refused.unwrap_err().to_string().contains("restart weir"));
        }
        drop(shard);
        let shard = OpenVectorIndex::open_or_create(dir.path(), "model", 4).unwrap();
        shard.apply_update(index(), 0).unwrap();
        shard.flush().unwrap();
    }
}
