//! The queue of a job's documents that are not started yet.

use std::collections::VecDeque;
use std::path::Path;

use crate::job_spec::DocumentSpec;

/// The documents of a job that wait to be started, sorted by file size.
///
/// Small files come first. But if several documents are processed at a time, one of them is always the largest that is left. So
/// large files neither wait for all others nor delay the end of the job.
pub(crate) struct DocumentQueue {
    /// Sorted by size. The number is the index of the document in the job.
    waiting: VecDeque<(usize, DocumentSpec)>,
}

impl DocumentQueue {
    /// Creates a queue that is sorted by file size.
    pub(crate) async fn sorted_by_file_size(specs: Vec<DocumentSpec>) -> Self {
        let mut sized = Vec::with_capacity(specs.len());
        for (place, spec) in specs.into_iter().enumerate() {
            sized.push((file_size(&spec.path).await, place, spec));
        }
        sized.sort_by_key(|(bytes, place, _)| (*bytes, *place));
        Self {
            waiting: sized.into_iter().map(|(_, place, spec)| (place, spec)).collect(),
        }
    }

    /// Creates a queue in the order of the job.
    pub(crate) fn in_given_order(specs: Vec<DocumentSpec>) -> Self {
        Self {
            waiting: specs.into_iter().enumerate().collect(),
        }
    }

    /// Removes the smallest or the largest document, and returns it with its index in the job.
    pub(crate) fn take_next(&mut self, largest: bool) -> Option<(usize, DocumentSpec)> {
        if largest {
            self.waiting.pop_back()
        } else {
            self.waiting.pop_front()
        }
    }
}

/// Returns the size of a file in bytes; 0 on an error, which opening the file will report.
async fn file_size(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |m| m.len())
}
