//! The role `chunking`: where text is cut for the index and for summaries.

use crate::Range;
pub use crate::bindings::chunker::exports::weir::pipeline::chunking::{
    Heading, MapReduce, PassageSource, Question, Section, SummaryPlan,
};

/// The role `chunking`.
pub trait Chunking {
    /// Returns the passages of a page to index: not empty, inside the text, on character boundaries, ordered by their starts.
    fn passages(&mut self, source: PassageSource) -> Vec<Range>;

    /// Plans the summary of a section. The default is no summary.
    fn summarize(&mut self, _section: Section) -> SummaryPlan {
        SummaryPlan::None
    }
}
