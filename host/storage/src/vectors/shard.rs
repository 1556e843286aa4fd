//! The shard's folder: made whole or not at all, opened with what it was made for, and kept from growing without end.
//!
//! What Qdrant's embedded engine of this version does and does not do decides how it is used here:
//!
//! - An update is applied in memory and appended to a log; `flush` writes it to the segments. Opening a shard does *not*
//!   replay the log. So what has not been flushed is gone after a crash, and [`Shard::flush`] is the only promise.
//! - The log is never cut. Its closed files serve nobody, but the last one carries the operation numbers on, without which
//!   later updates would be taken for old ones and ignored. [`Shard::trim_log`] removes all but that.
//! - `flush` and `drop` panic where other calls answer with an error, so every call goes through [`guarded`].
//! - `optimize` (building an HNSW graph) keeps deletions in memory until it is through and relies on the log to bring them
//!   back after a crash. Without replay a flush that returns in between would promise what is not so; run alone it blocks
//!   updates for minutes. It is not called: all searches are exact scans over the tenant's passages.

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use qdrant_edge::{
    Distance, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations,
    Modifier, OperationError, OperationResult, UpdateOperation, WalOptions,
};
use serde::{Deserialize, Serialize};
use weir_core::StorageError;

use super::passage::{DENSE, SPARSE, index};
use crate::folder::{free_bytes, make_private, need_room, sync_folder, sync_tree};

/// Bytes that must be free before anything is written: the files of the shard are sparse and written through memory maps
/// (see [`need_room`]).
const ROOM: u64 = 32 << 20;
/// Size of a log file; the engine reserves it when the file is made.
const LOG_FILE: usize = 8 << 20;
/// Written into the folder last, by the name of which a finished shard is known.
const LABEL: &str = "weir.json";
/// Raised when passages are filed or taken apart in another way.
const FORMAT: u32 = 2;

/// What a shard was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MadeFor {
    format: u32,
    pub(super) model: String,
    pub(super) dimensions: usize,
}

/// An open shard.
pub(super) struct Shard {
    path: PathBuf,
    made_for: MadeFor,
    edge: Option<EdgeShard>,
}

impl Shard {
    /// Opens `<data>/vectors`, making it if need be. Blocks on the disk.
    pub(super) fn open(data: &Path, model: &str, dimensions: usize) -> Result<Self, StorageError> {
        let folder = data.join("vectors");
        let made_for = MadeFor {
            format: FORMAT,
            model: model.to_owned(),
            dimensions,
        };
        if !folder.exists() {
            make(data, &folder, &made_for)?;
        }
        check(&folder, &label(&folder)?, &made_for)?;
        Self::load(folder, made_for)
    }

    /// Opens `<data>/vectors` for what it was made for; `None` if it was never made. Blocks on the disk.
    pub(super) fn open_again(data: &Path) -> Result<Option<Self>, StorageError> {
        let folder = data.join("vectors");
        if !folder.exists() {
            return Ok(None);
        }
        let found = label(&folder)?;
        let made_for = MadeFor {
            format: FORMAT,
            ..found.clone()
        };
        check(&folder, &found, &made_for)?;
        Self::load(folder, made_for).map(Some)
    }

    fn load(path: PathBuf, made_for: MadeFor) -> Result<Self, StorageError> {
        let mut shard = Self {
            path,
            made_for,
            edge: None,
        };
        shard.trim_log()?;
        shard.edge = Some(guarded(&shard.path, || EdgeShard::load(&shard.path, None))?);
        Ok(shard)
    }

    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it was made for.
    pub(super) const fn made_for(&self) -> &MadeFor {
        &self.made_for
    }

    /// Asks the engine.
    pub(super) fn ask<R>(
        &self,
        work: impl FnOnce(&EdgeShard) -> OperationResult<R>,
    ) -> Result<R, StorageError> {
        match &self.edge {
            Some(edge) => guarded(&self.path, || work(edge)),
            None => Err(failed(&self.path, "the shard is not open")),
        }
    }

    /// Applies a change of about `bytes` bytes. Only one at a time, and none while [`Shard::flush`] runs.
    pub(super) fn update(&self, change: UpdateOperation, bytes: u64) -> Result<(), StorageError> {
        need_room(&self.path, ROOM + 4 * bytes)?;
        self.ask(|edge| edge.update(change))
    }

    /// Returns when every change survives a power cut.
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        need_room(&self.path, ROOM)?;
        self.ask(|edge| {
            edge.flush();
            Ok(())
        })?;
        self.trim_log()
    }

    /// Removes the closed files of the log but the last. To the engine, open or not, this is what its own truncation does.
    fn trim_log(&self) -> Result<(), StorageError> {
        let log = self.path.join("wal");
        let failed = |e: std::io::Error| StorageError::io(log.display().to_string(), &e);
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
        // Oldest first, so that a crash in between leaves no gap.
        closed
            .into_iter()
            .try_for_each(|(_, file)| fs::remove_file(file).map_err(failed))
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let Some(edge) = self.edge.take() else { return };
        // Dropping flushes, which without room may panic or, through its memory maps, kill the process. What it would have
        // flushed was promised to nobody, so then it is left to the end of the process instead.
        let closed = match need_room(&self.path, ROOM) {
            Ok(()) => catch_unwind(AssertUnwindSafe(|| drop(edge))).is_ok(),
            Err(_) => {
                std::mem::forget(edge);
                false
            }
        };
        if !closed {
            tracing::error!(index = %self.path.display(), "the index could not be flushed when it was closed");
        }
    }
}

/// Makes a shard under another name and renames it into place.
fn make(data: &Path, folder: &Path, made_for: &MadeFor) -> Result<(), StorageError> {
    let unfinished = data.join("vectors.unfinished");
    let io = |e: std::io::Error| StorageError::io(unfinished.display().to_string(), &e);
    match fs::remove_dir_all(&unfinished) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    need_room(data, 2 * ROOM)?;
    make_private(&unfinished)?;
    let shard = Shard {
        edge: Some(guarded(&unfinished, || {
            EdgeShard::new(&unfinished, config(made_for.dimensions))
        })?),
        path: unfinished.clone(),
        made_for: made_for.clone(),
    };
    let index = FieldIndexOperations::CreateIndex(index());
    shard.update(UpdateOperation::FieldIndexOperation(index), 0)?;
    shard.flush()?;
    drop(shard);
    let label = serde_json::to_vec_pretty(made_for).map_err(|e| io(e.into()))?;
    fs::write(unfinished.join(LABEL), label).map_err(io)?;
    sync_tree(&unfinished).map_err(io)?;
    fs::rename(&unfinished, folder).map_err(io)?;
    sync_folder(data).map_err(io)
}

fn config(dimensions: usize) -> EdgeConfig {
    EdgeConfig::builder()
        .on_disk_payload(true)
        .vector(
            DENSE,
            EdgeVectorParams::builder(dimensions, Distance::Cosine).build(),
        )
        .sparse_vector(
            SPARSE,
            EdgeSparseVectorParams::builder().modifier(Modifier::Idf).build(),
        )
        .wal_options(WalOptions {
            segment_capacity: LOG_FILE,
            ..WalOptions::default()
        })
        .build()
}

/// What the shard in `folder` was made for.
fn label(folder: &Path) -> Result<MadeFor, StorageError> {
    let file = folder.join(LABEL);
    let damaged = |reason: String| StorageError::Damaged {
        what: file.display().to_string(),
        reason,
    };
    let found = match fs::read(&file) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(damaged(format!(
                "it is missing: remove {} and take the documents in again with --force",
                folder.display()
            )));
        }
        Err(e) => return Err(StorageError::io(file.display().to_string(), &e)),
    };
    serde_json::from_slice(&found).map_err(|e| damaged(e.to_string()))
}

fn check(folder: &Path, found: &MadeFor, wanted: &MadeFor) -> Result<(), StorageError> {
    if found == wanted {
        return Ok(());
    }
    if found.format != wanted.format {
        return Err(failed(
            folder,
            "it was made by another version of weir: use that one, or another folder with --data",
        ));
    }
    Err(failed(
        folder,
        &format!(
            "its vectors are of model {} ({} dimensions) and cannot be compared with those of {} ({}): set that model \
             again, or take the documents into another folder with --data",
            found.model, found.dimensions, wanted.model, wanted.dimensions
        ),
    ))
}

/// Calls the engine and turns its errors and panics into ours.
fn guarded<R>(folder: &Path, work: impl FnOnce() -> OperationResult<R>) -> Result<R, StorageError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(OperationError::InconsistentStorage { description })) => Err(StorageError::Damaged {
            what: folder.display().to_string(),
            reason: one_line(&description),
        }),
        Ok(Err(error)) => Err(explained(folder, &error.to_string())),
        Err(panic) => {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("the engine panicked");
            Err(explained(folder, reason))
        }
    }
}

/// The engine passes on what the system said as text alone.
fn explained(folder: &Path, reason: &str) -> StorageError {
    let what = folder.display().to_string();
    if reason.contains("WouldBlock") {
        StorageError::InUse { what }
    } else if ["StorageFull", "No space left", "os error 28"]
        .iter()
        .any(|s| reason.contains(s))
        || free_bytes(folder).is_some_and(|free| free < 1 << 20)
    {
        StorageError::Full { what }
    } else {
        failed(folder, reason)
    }
}

fn failed(folder: &Path, reason: &str) -> StorageError {
    StorageError::Failed {
        what: folder.display().to_string(),
        reason: one_line(reason),
    }
}

/// The engine's errors may carry a backtrace, which is not for people.
fn one_line(text: &str) -> String {
    let text = text.split(", backtrace: ").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
