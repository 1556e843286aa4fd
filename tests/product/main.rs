//! Whole-product tests: the real binary, PDFium, models and components, on real files.

mod bad_input;
mod cancel;
mod crash;
mod ingest;
mod memory;
mod policies;
