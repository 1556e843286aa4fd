//! Removing points from the files of the shard.

use std::fs::{self, File};

use qdrant_edge::{CountRequest, EdgeOptimizersConfig, Filter, PointOperations, UpdateOperation};
use weir_core::StorageError;

use super::{LOG_FILE, ROOM, Shard};
use crate::folder::{need_room, sync_folder};
use crate::vectors::passage::of_key;

/// Is there while removed points may still be in the files.
const REMOVED: &str = "removed";

impl Shard {
    /// Removes the points that a filter leaves; whether there is something to compact then. [`Self::compact`] removes them from the
    /// files.
    pub(in crate::vectors) fn remove(&self, filter: Filter) -> Result<bool, StorageError> {
        let request = CountRequest {
            filter: Some(filter.clone()),
            exact: true,
        };
        if self.ask(|edge| edge.count(request))? == 0 {
            return Ok(self.has_removed());
        }
        File::create(self.location.path().join(REMOVED))
            .and_then(|file| file.sync_all())
            .and_then(|()| sync_folder(self.location.path()))
            .map_err(|e| self.location.io(&e))?;
        let change = PointOperations::DeletePointsByFilter(filter);
        self.update(UpdateOperation::PointOperation(change), 0)?;
        Ok(true)
    }

    /// Whether removed points may still be in the files.
    pub(in crate::vectors) fn has_removed(&self) -> bool {
        self.location.path().join(REMOVED).exists()
    }

    /// Writes the segments that have removed points anew without them, and removes them from the log. Takes a second for some
    /// 10,000 points of such a segment, and room for a second copy of it. Nothing else may change the shard meanwhile.
    pub(in crate::vectors) fn compact(&self) -> Result<(), StorageError> {
        if !self.has_removed() {
            return Ok(());
        }
        self.check_flushed()?;
        need_room(&self.location, ROOM + 3 * LOG_FILE as u64)?;
        self.ask(|edge| {
            let wanted = optimizers();
            if edge.config().optimizers != wanted {
                edge.set_optimizers_config(wanted)?;
            }
            edge.optimize()
        })?;
        // The first may still fit into the file that is open. The second closes that one and the third the file of the second, so
        // that the last closed file has no points.
        for _ in 0..3 {
            self.ask(|edge| edge.update(filler()))?;
        }
        self.flush()?;
        fs::remove_file(self.location.path().join(REMOVED))
            .and_then(|()| sync_folder(self.location.path()))
            .map_err(|e| self.location.io(&e))
    }
}

/// Every segment with a removed point is written anew, and no graph is built. More than two segments become one.
fn optimizers() -> EdgeOptimizersConfig {
    EdgeOptimizersConfig {
        deleted_threshold: Some(0.0),
        vacuum_min_vector_number: Some(0),
        default_segment_number: Some(1),
        max_segment_size: Some(usize::MAX),
        indexing_threshold: Some(0),
        prevent_unoptimized: None,
    }
}

/// A change that fills a file of the log and changes nothing: no point is filed under its key.
fn filler() -> UpdateOperation {
    let filter = of_key("x".repeat(LOG_FILE - (64 << 10)));
    UpdateOperation::PointOperation(PointOperations::DeletePointsByFilter(filter))
}
