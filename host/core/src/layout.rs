//! From boxes on a page to text a person would read: the order of the lines, and which of them are headings.
//!
//! A text layer and an OCR model both give lines with boxes and no order worth trusting. What can be known from the
//! boxes alone is enough for almost every page, and it is the same for both sources, so it is done once, here, without a
//! model: milliseconds at most, the same answer every time. What boxes cannot tell (a magazine's free layout, text that
//! flows around a figure) comes out in a sensible order, not always in the author's.

mod block;
mod columns;
mod edges;
mod fragments;
mod headings;
mod order;
mod script;

pub use edges::ColumnEdges;
pub use headings::headings;
pub use order::reading_order;
