//! Event streams: they send the events of a job or a tenant to clients as they are committed.
//!
//! ```text
//!  commit ─► notification ─► feed (one per tenant) ─► recent events ─┬─► reader ─► SSE
//!                              ▲                                     └─► reader ─► WebSocket
//!                            ledger ◄──────────── a reader that is behind ───┘
//! ```
//!
//! A reader is only a cursor. It takes the next events from the recent events that the tenant's feed has in memory, which all
//! readers share. If it is behind those, it reads from the ledger. So a slow reader delays no other reader and costs no memory, and
//! the switch from the ledger to the recent events is a comparison of two positions. A client that does not read for
//! `server.transfer_idle_timeout_seconds` is dropped; it can resume with `Last-Event-ID`.

mod event_feed;
mod event_reader;
mod event_stream;
mod sse;
#[cfg(test)]
mod tests;
mod websocket;

pub(crate) use event_feed::EventFeeds;
pub(crate) use sse::{
    __path_stream_job_events, __path_stream_tenant_events, SentEvent, sse_response, stream_job_events,
    stream_tenant_events,
};
pub(crate) use websocket::stream_job_events_ws;
