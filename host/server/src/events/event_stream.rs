//! The part of an event stream that does not depend on its protocol: its start, heartbeats, write timeout and end.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use weir_control::Control;
use weir_control::events::{EncodedEvent, EventReader};

use crate::auth::Caller;
use crate::stream_limiter::StreamPermit;
use crate::write_timeout::WriteTimedOutFlag;

/// Sends events to one client.
pub(super) trait EventSink: Send {
    /// Sends events; `false` if the client has disconnected. Waits while the client does not read.
    fn send_events(&mut self, events: &[Arc<EncodedEvent>]) -> impl Future<Output = bool> + Send;

    /// Sends a heartbeat; `false` if the client has disconnected.
    fn send_heartbeat(&mut self) -> impl Future<Output = bool> + Send;

    /// Waits until the client disconnects.
    fn wait_for_disconnect(&mut self) -> impl Future<Output = ()> + Send;
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEndReason {
    /// The job has ended and its last event was sent.
    JobEnded,
    /// The client disconnected.
    ClientDisconnected,
    /// The client did not read for too long.
    ClientTooSlow,
    /// The key is not valid any more.
    KeyNoLongerValid,
    /// The host is stopping.
    HostStopping,
    /// The events cannot be read.
    EventsUnreadable,
}

/// An accepted event stream.
pub(super) struct EventStreamSession {
    pub(super) control: Arc<Control>,
    pub(super) caller: Caller,
    pub(super) reader: EventReader,
    /// Whether the stream ends with the event that ends a job.
    pub(super) ends_with_job: bool,
    pub(super) permit: StreamPermit,
    pub(super) write_timed_out: WriteTimedOutFlag,
}

impl EventStreamSession {
    /// Sends events until the stream ends, and returns why it ended.
    pub(super) async fn send_events_until_end(self, sink: &mut impl EventSink) -> StreamEndReason {
        let Self {
            control,
            caller,
            mut reader,
            ends_with_job,
            permit: _permit,
            write_timed_out,
        } = self;
        let heartbeat_interval =
            Duration::from_secs(control.settings.server_heartbeat_interval_seconds.into());
        let write_timeout = Duration::from_secs(control.settings.server_transfer_idle_timeout_seconds.into());
        let mut heartbeat_ticks = interval_at(
            tokio::time::Instant::now() + heartbeat_interval,
            heartbeat_interval,
        );
        heartbeat_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut no_event_since_tick = true;
        let end_reason = loop {
            let events = tokio::select! {
                biased;
                () = control.stop_signal.cancelled() => break StreamEndReason::HostStopping,
                () = sink.wait_for_disconnect() => break StreamEndReason::ClientDisconnected,
                events = reader.next_events() => events,
                _ = heartbeat_ticks.tick() => {
                    if !caller.is_still_authorized(&control).await {
                        break StreamEndReason::KeyNoLongerValid;
                    }
                    if std::mem::replace(&mut no_event_since_tick, true) {
                        match timeout(write_timeout, sink.send_heartbeat()).await {
                            Ok(true) => {}
                            Ok(false) => break StreamEndReason::ClientDisconnected,
                            Err(_late) => break StreamEndReason::ClientTooSlow,
                        }
                    }
                    continue;
                }
            };
            let events = match events {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(tenant = %caller.tenant_id(), %error, "an event stream ends: its events cannot be read");
                    break StreamEndReason::EventsUnreadable;
                }
            };
            no_event_since_tick = false;
            let last = events.iter().position(|event| ends_with_job && event.ends_job);
            let events_to_send = events.get(..=last.unwrap_or(events.len())).unwrap_or(&events);
            match timeout(write_timeout, sink.send_events(events_to_send)).await {
                Ok(true) if last.is_some() => break StreamEndReason::JobEnded,
                Ok(true) => {}
                Ok(false) => break StreamEndReason::ClientDisconnected,
                Err(_late) => break StreamEndReason::ClientTooSlow,
            }
        };
        // If events still fit into the buffer of the connection, the write timeout of the connection fires first.
        let end_reason = match end_reason {
            StreamEndReason::ClientDisconnected if write_timed_out.has_timed_out() => {
                StreamEndReason::ClientTooSlow
            }
            reason => reason,
        };
        if end_reason == StreamEndReason::ClientTooSlow {
            counter!("weir_event_streams_too_slow_total").increment(1);
            tracing::info!(tenant = %caller.tenant_id(), "an event stream is dropped: its client does not read");
        }
        end_reason
    }
}
