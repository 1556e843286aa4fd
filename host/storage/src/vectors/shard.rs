//! The shard's folder: made whole or not at all, opened with what it was made for, and kept from growing without end.
//!
//! What Qdrant's embedded engine of this version does and does not do decides how it is used here:
//!
//! - An update is applied in memory and appended to a log; `flush` writes it to the segments. Opening a shard does *not*
//!   replay the log. So what has not been flushed is gone after a crash, and [`Shard::flush`] is the only promise.
//! - The log is never cut. Its closed files serve nobody, but the last one carries the operation numbers on, without which
//!   later updates would be taken for old ones and ignored. [`Shard::trim_log`] removes all but that.
//! - `flush` and `drop` panic where other calls answer with an error, so every call goes through [`guarded`].
//! - `optimize` keeps deletions that come meanwhile in memory until it is through and relies on the log to bring them back after
//!   a crash. Without replay a flush that returns in between would promise what is not so. So it runs alone, and builds no HNSW
//!   graph, which would block updates for minutes: all searches are exact scans over the tenant's passages.
//! - A removed point stays in the files of its segment and in the log. `compaction` writes the segments anew without removed
//!   points, and enough into the log that its files with points are closed and can be removed. A file in the folder says that
//!   there is something to compact, so that a crash does not forget it.

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

use super::passage::{DENSE, SPARSE, index};
use crate::folder::{free_bytes, make_private, need_room, sync_folder, sync_tree};
use crate::location::Location;

/// Bytes that must be free before anything is written: the files of the shard are sparse and written through memory maps
/// (see [`need_room`]).
const ROOM: u64 = 32 << 20;
/// Size of a log file; the engine reserves it when the file is made.
const LOG_FILE: usize = 8 << 20;
/// Where the engine builds a segment; what is there when the shard is opened was cut short.
const UNFINISHED_SEGMENTS: &str = "temp_segments";
/// Written into the folder last, by the name of which a finished shard is known.
const LABEL: &str = "weir.json";
/// What errors call it.
pub(super) const INDEX: &str = "the index";
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
    location: Location,
    made_for: MadeFor,
    edge: Option<EdgeShard>,
    /// A flush failed. The kernel takes what it could not write for written, so another flush would promise what is not so.
    has_failed: AtomicBool,
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
            location: located(path),
            made_for,
            edge: None,
            has_failed: AtomicBool::new(false),
        };
        shard.trim_log()?;
        let unfinished = shard.location.path().join(UNFINISHED_SEGMENTS);
        match fs::remove_dir_all(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(located(unfinished).io(&e)),
            _ => {}
        }
        shard.edge = Some(guarded(&shard.location, || {
            EdgeShard::load(shard.location.path(), None)
        })?);
        Ok(shard)
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
            Some(edge) => guarded(&self.location, || work(edge)),
            None => Err(self.location.failed("the shard is not open")),
        }
    }

    /// Applies a change of about `bytes` bytes. Only one at a time, and none while [`Shard::flush`] runs.
    pub(super) fn update(&self, change: UpdateOperation, bytes: u64) -> Result<(), StorageError> {
        self.check_flushed()?;
        need_room(&self.location, ROOM + 4 * bytes)?;
        self.ask(|edge| edge.update(change))
    }

    /// Returns when every change survives a power cut. Once it has failed it fails until the shard is opened again.
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.flush_by(|edge| {
            edge.flush();
        })
    }

    fn flush_by(&self, flush: impl FnOnce(&EdgeShard)) -> Result<(), StorageError> {
        self.check_flushed()?;
        need_room(&self.location, ROOM)?;
        let flushed = self.ask(|edge| {
            flush(edge);
            Ok(())
        });
        flushed.inspect_err(|_| self.has_failed.store(true, Ordering::Relaxed))?;
        self.trim_log()
    }

    fn check_flushed(&self) -> Result<(), StorageError> {
        if self.has_failed.load(Ordering::Relaxed) {
            let reason =
                "it could not be written to the disk: restart weir, which does again what is not in it";
            return Err(self.location.failed(reason));
        }
        Ok(())
    }

    /// Removes the closed files of the log but the last. To the engine, open or not, this is what its own truncation does.
    fn trim_log(&self) -> Result<(), StorageError> {
        let log = self.location.path().join("wal");
        let failed = |e: std::io::Error| located(&log).io(&e);
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
        let closed = match need_room(&self.location, ROOM) {
            Ok(()) => catch_unwind(AssertUnwindSafe(|| drop(edge))).is_ok(),
            Err(_) => {
                std::mem::forget(edge);
                false
            }
        };
        if !closed {
            tracing::error!(index = %self.location.path().display(), "the index could not be flushed when it was closed");
        }
    }
}

/// Makes a shard under another name and renames it into place.
fn make(data: &Path, folder: &Path, made_for: &MadeFor) -> Result<(), StorageError> {
    let unfinished = data.join("vectors.unfinished");
    let location = located(&unfinished);
    let io = |e: std::io::Error| location.io(&e);
    match fs::remove_dir_all(&unfinished) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    need_room(&located(data), 2 * ROOM)?;
    make_private(&unfinished)?;
    let shard = Shard {
        edge: Some(guarded(&location, || {
            EdgeShard::new(&unfinished, config(made_for.dimensions))
        })?),
        location: location.clone(),
        made_for: made_for.clone(),
        has_failed: AtomicBool::new(false),
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
    let location = Location::new(format!("{LABEL} of {INDEX}"), &file);
    let found = match fs::read(&file) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(location.damaged(
                "it is missing: remove the folder vectors of the data folder and take the documents in again with --force",
            ));
        }
        Err(e) => return Err(location.io(&e)),
    };
    serde_json::from_slice(&found).map_err(|e| location.damaged(e))
}

fn check(folder: &Path, found: &MadeFor, wanted: &MadeFor) -> Result<(), StorageError> {
    if found == wanted {
        return Ok(());
    }
    if found.format != wanted.format {
        return Err(located(folder)
            .failed("it was made by another version of weir: use that one, or another folder with --data"));
    }
    Err(located(folder).failed(format_args!(
        "its vectors are of model {} ({} dimensions) and cannot be compared with those of {} ({}): set that model again, or \
         take the documents into another folder with --data",
        found.model, found.dimensions, wanted.model, wanted.dimensions
    )))
}

/// Calls the engine and turns its errors and panics into ours.
fn guarded<R>(location: &Location, work: impl FnOnce() -> OperationResult<R>) -> Result<R, StorageError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(OperationError::InconsistentStorage { description })) => {
            Err(location.damaged(one_line(&description)))
        }
        Ok(Err(error)) => Err(explained(location, &error.to_string())),
        Err(panic) => {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("the engine panicked");
            Err(explained(location, reason))
        }
    }
}

/// The engine passes on what the system said as text alone.
fn explained(location: &Location, reason: &str) -> StorageError {
    if reason.contains("WouldBlock") {
        location.in_use()
    } else if ["StorageFull", "No space left", "os error 28"]
        .iter()
        .any(|s| reason.contains(s))
        || free_bytes(location.path()).is_some_and(|free| free < 1 << 20)
    {
        location.full()
    } else {
        location.failed(one_line(reason))
    }
}

fn located(folder: impl Into<PathBuf>) -> Location {
    Location::new(INDEX, folder)
}

/// The engine's errors may carry a backtrace, which is not for people.
fn one_line(text: &str) -> String {
    let text = text.split(", backtrace: ").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_flush_is_final_until_the_shard_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let shard = Shard::open(dir.path(), "model", 4).unwrap();
        shard.flush().unwrap();
        let failed = shard.flush_by(|_| panic!("Input/output error (os error 5)"));
        assert!(failed.unwrap_err().to_string().contains("os error 5"));
        let index = || UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index()));
        for refused in [shard.flush(), shard.update(index(), 0)] {
            assert!(refused.unwrap_err().to_string().contains("restart weir"));
        }
        drop(shard);
        let shard = Shard::open(dir.path(), "model", 4).unwrap();
        shard.update(index(), 0).unwrap();
        shard.flush().unwrap();
    }
}
