//! Page layout: sorts lines into reading order and detects headings.
//!
//! A text layer and an OCR model both return lines with bounding boxes, and the order of the lines is not reliable.
//! The boxes are sufficient to find the order for almost every page, and the method is the same for both sources. So
//! it is implemented once, here, without a model. It takes milliseconds at most and is deterministic. Where boxes are
//! not sufficient (a magazine's free layout, text that flows around a figure), the order is plausible but not always
//! that of the author.

mod column_left_edges;
mod column_regions;
mod headings;
mod line_box;
mod line_fragments;
mod reading_order;
mod writing_systems;

pub use column_left_edges::ColumnLeftEdges;
pub use headings::detect_page_headings;
pub use reading_order::sort_into_reading_order;
