//! Events as they are committed, to whoever reads.
//!
//! ```text
//!  commit ─► bell ─► follower (one a tenant) ─► the latest events ─┬─► reader ─► SSE
//!                       ▲                                          └─► reader ─► WebSocket
//!                     ledger ◄──────────── a reader that is behind ────┘
//! ```
//!
//! A reader is a cursor and nothing else: it takes what follows its cursor from the latest events that the tenant's
//! follower keeps in memory, all readers the same copy, or from the ledger if it is behind those. So a slow reader holds
//! nobody up and costs nothing but its place, and the seam between what is replayed and what follows is a comparison of two
//! numbers. A client that takes nothing for `server.stall_seconds` is dropped; it resumes with `Last-Event-ID`.

mod feed;
mod follow;
mod reader;
mod sse;
#[cfg(test)]
mod tests;
mod ws;

pub(crate) use feed::Feeds;
pub(crate) use sse::{
    __path_job_events, __path_tenant_events, SentEvent, job_events, response, tenant_events,
};
pub(crate) use ws::job_events_ws;
