//! Event streams: they send the events of a job or a tenant to clients as they are committed.
//!
//! `weir_control::events` supplies the events. A client that does not read for `server.transfer_idle_timeout_seconds` is dropped; it can
//! resume with `Last-Event-ID`.

mod event_stream;
mod sse;
#[cfg(test)]
mod tests;
mod websocket;

pub(crate) use sse::{
    __path_stream_job_events, __path_stream_tenant_events, SentEvent, sse_response, stream_job_events,
    stream_tenant_events,
};
pub(crate) use websocket::stream_job_events_ws;
