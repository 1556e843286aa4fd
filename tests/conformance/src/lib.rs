//! Conformance suites for the ports. The stores and the fakes of each crate's tests run the same suite, so that a fake behaves as
//! the store does. The crate also has a search for files that contain a text, for tests of erasure.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this crate is tests")]

mod component_state;
mod files;
mod ledger;

pub use component_state::check_component_state;
pub use files::list_files_containing;
pub use ledger::check_ledger;
