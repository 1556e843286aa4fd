//! Where to cut text, for the index and for summaries.

use crate::Range;
pub use crate::bindings::chunker::exports::weir::pipeline::chunking::{
    Heading, MapReduce, PassageSource, Question, Section, SummaryPlan,
};

/// The role `chunking`.
pub trait Chunking {
    /// The passages of a page to index: not empty, within the text, on character boundaries, in order of their starts.
    fn passages(&mut self, source: PassageSource) -> Vec<Range>;

    /// How to summarize a section. If not given: not at all.
    fn summarize(&mut self, _section: Section) -> SummaryPlan {
        SummaryPlan::None
    }
}
