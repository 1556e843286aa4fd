//! Reading order and headings.
