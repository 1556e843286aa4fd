//! Which of a job's documents comes next.

use std::collections::VecDeque;
use std::path::Path;

use crate::spec::DocumentSpec;

/// A job's documents that wait for their turn. Small files come first; but where several are in work at a time, one of
/// them is always the largest that is left, so that big files neither wait for all the others nor keep the job waiting
/// at its end.
pub(crate) struct Lineup {
    /// By size. The number is the document's place in the job.
    waiting: VecDeque<(usize, DocumentSpec)>,
}

impl Lineup {
    /// The documents by the size of their files.
    pub(crate) async fn of(specs: Vec<DocumentSpec>) -> Self {
        let mut sized = Vec::with_capacity(specs.len());
        for (place, spec) in specs.into_iter().enumerate() {
            sized.push((size(&spec.path).await, place, spec));
        }
        sized.sort_by_key(|(bytes, place, _)| (*bytes, *place));
        Self {
            waiting: sized.into_iter().map(|(_, place, spec)| (place, spec)).collect(),
        }
    }

    /// The documents in the order of the job.
    pub(crate) fn as_given(specs: Vec<DocumentSpec>) -> Self {
        Self {
            waiting: specs.into_iter().enumerate().collect(),
        }
    }

    /// The next, with its place in the job: the smallest or the largest.
    pub(crate) fn next(&mut self, largest: bool) -> Option<(usize, DocumentSpec)> {
        if largest {
            self.waiting.pop_back()
        } else {
            self.waiting.pop_front()
        }
    }
}

/// Bytes of a file; 0 if that cannot be told, which its opening will explain.
async fn size(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |m| m.len())
}
