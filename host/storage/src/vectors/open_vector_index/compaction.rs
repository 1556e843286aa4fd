//! Removes points, and rewrites the files of the shard without removed points.

use std::fs::{self, File};

use qdrant_edge::{CountRequest, EdgeOptimizersConfig, Filter, PointOperations, UpdateOperation};
use weir_core::StorageError;

use super::{LOG_FILE_BYTES, MIN_FREE_BYTES, OpenVectorIndex};
use crate::data_folder::{check_free_space, sync_folder};
use crate::vectors::shard_points::key_filter;

/// The marker file, which exists while removed points may still be in the files.
const REMOVED_MARKER_FILE: &str = "removed";

impl OpenVectorIndex {
    /// Removes the points that match a filter. Returns whether the shard needs a compaction, which removes them from the files.
    pub(in crate::vectors) fn remove_points(&self, filter: Filter) -> Result<bool, StorageError> {
        let request = CountRequest {
            filter: Some(filter.clone()),
            exact: true,
        };
        if self.call_open_engine(|edge| edge.count(request))? == 0 {
            return Ok(self.needs_compaction());
        }
        File::create(self.location.path().join(REMOVED_MARKER_FILE))
            .and_then(|file| file.sync_all())
            .and_then(|()| sync_folder(self.location.path()))
            .map_err(|e| self.location.io_error(&e))?;
        let change = PointOperations::DeletePointsByFilter(filter);
        self.apply_update(UpdateOperation::PointOperation(change), 0)?;
        Ok(true)
    }

    /// Returns whether removed points may still be in the files.
    pub(in crate::vectors) fn needs_compaction(&self) -> bool {
        self.location.path().join(REMOVED_MARKER_FILE).exists()
    }

    /// Rewrites the segments without removed points, and removes these points from the log. Takes about a second for 10,000 points of a
    /// segment, and disk space for a second copy of the segment. The caller runs no update or flush meanwhile.
    pub(in crate::vectors) fn compact(&self) -> Result<(), StorageError> {
        if !self.needs_compaction() {
            return Ok(());
        }
        self.check_no_failed_flush()?;
        check_free_space(&self.location, MIN_FREE_BYTES + 3 * LOG_FILE_BYTES as u64)?;
        self.call_open_engine(|edge| {
            let wanted = compaction_config();
            if edge.config().optimizers != wanted {
                edge.set_optimizers_config(wanted)?;
            }
            edge.optimize()
        })?;
        // The first filler may still fit into the open log file. The second closes that file, and the third closes the file of the
        // second. So the last closed file has no points.
        for _ in 0..3 {
            self.call_open_engine(|edge| edge.update(log_filler_update()))?;
        }
        self.flush()?;
        fs::remove_file(self.location.path().join(REMOVED_MARKER_FILE))
            .and_then(|()| sync_folder(self.location.path()))
            .map_err(|e| self.location.io_error(&e))
    }
}

/// Returns a configuration that rewrites every segment with a removed point, builds no graph, and merges more than two segments into one.
fn compaction_config() -> EdgeOptimizersConfig {
    EdgeOptimizersConfig {
        deleted_threshold: Some(0.0),
        vacuum_min_vector_number: Some(0),
        default_segment_number: Some(1),
        max_segment_size: Some(usize::MAX),
        indexing_threshold: Some(0),
        prevent_unoptimized: None,
    }
}

/// Returns an update that fills a log file and changes no point: it removes the points of a key that none has.
fn log_filler_update() -> UpdateOperation {
    let filter = key_filter("x".repeat(LOG_FILE_BYTES - (64 << 10)));
    UpdateOperation::PointOperation(PointOperations::DeletePointsByFilter(filter))
}
