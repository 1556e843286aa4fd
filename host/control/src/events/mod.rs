//! The events of jobs and tenants as they are committed, for readers at different speeds.
//!
//! ```text
//!  commit ─► notification ─► feed (one per tenant) ─► recent events ─┬─► reader
//!                              ▲                                     └─► reader
//!                            ledger ◄──────────── a reader that is behind ───┘
//! ```
//!
//! A reader is only a cursor. It takes the next events from the recent events that the tenant's feed has in memory, which all
//! readers share. If it is behind those, it reads from the ledger. So a slow reader delays no other reader and costs no memory, and
//! the switch from the ledger to the recent events is a comparison of two positions.

mod event_feed;
mod event_reader;
#[cfg(test)]
mod tests;

pub use event_feed::{EncodedEvent, TenantEventFeeds};
pub use event_reader::{EventReader, JobStreamStart, JobStreamStartError, check_and_resolve_stream_start};
