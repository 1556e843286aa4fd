//! The part of an event stream that does not depend on its protocol: its start, heartbeats, write timeout and end.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use weir_control::Control;
use weir_control::events::{EncodedEvent, EventReader};

use crate::auth::Caller;
use crate::stream_limiter::StreamPermit;
use crate::write_timeout::WriteTimedOut;

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
pub(super) enum StreamEnd {
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
pub(super) struct EventStream {
    pub(super) control: Arc<Control>,
    pub(super) caller: Caller,
    pub(super) reader: EventReader,
    /// Whether the stream ends with the event that ends a job.
    pub(super) ends_with_job: bool,
    pub(super) permit: StreamPermit,
    pub(super) write_timed_out: WriteTimedOut,
}

impl EventStream {
    /// Sends events until the stream ends, and returns why it ended.
    pub(super) async fn send_until_end(self, sink: &mut impl EventSink) -> StreamEnd {
        let Self {
            control,
            caller,
            mut reader,
            ends_with_job: one_job,
            permit: _place,
            write_timed_out: given_up,
        } = self;
        let every = Duration::from_secs(control.settings.server_heartbeat_interval_seconds.into());
        let patience = Duration::from_secs(control.settings.server_transfer_idle_timeout_seconds.into());
        let mut beat = interval_at(tokio::time::Instant::now() + every, every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = true;
        let end = loop {
            let events = tokio::select! {
                biased;
                () = control.stop_signal.cancelled() => break StreamEnd::HostStopping,
                () = sink.wait_for_disconnect() => break StreamEnd::ClientDisconnected,
                events = reader.next_events() => events,
                _ = beat.tick() => {
                    if !caller.is_still_authorized(&control).await {
                        break StreamEnd::KeyNoLongerValid;
                    }
                    if std::mem::replace(&mut quiet, true) {
                        match timeout(patience, sink.send_heartbeat()).await {
                            Ok(true) => {}
                            Ok(false) => break StreamEnd::ClientDisconnected,
                            Err(_late) => break StreamEnd::ClientTooSlow,
                        }
                    }
                    continue;
                }
            };
            let events = match events {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(tenant = %caller.tenant_id(), %error, "an event stream ends: its events cannot be read");
                    break StreamEnd::EventsUnreadable;
                }
            };
            quiet = false;
            let last = events.iter().position(|told| one_job && told.ends_job);
            let told = events.get(..=last.unwrap_or(events.len())).unwrap_or(&events);
            match timeout(patience, sink.send_events(told)).await {
                Ok(true) if last.is_some() => break StreamEnd::JobEnded,
                Ok(true) => {}
                Ok(false) => break StreamEnd::ClientDisconnected,
                Err(_late) => break StreamEnd::ClientTooSlow,
            }
        };
        // If events still fit into the buffer of the connection, the write timeout of the connection fires first.
        let end = match end {
            StreamEnd::ClientDisconnected if given_up.is_set() => StreamEnd::ClientTooSlow,
            end => end,
        };
        if end == StreamEnd::ClientTooSlow {
            counter!("weir_event_streams_dropped_total").increment(1);
            tracing::info!(tenant = %caller.tenant_id(), "an event stream is dropped: its client does not read");
        }
        end
    }
}
