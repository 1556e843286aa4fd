//! What all event streams have in common: they begin, beat, are dropped and end alike, however the bytes travel.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use weir_core::ports::Ledger as _;
use weir_core::{JobId, TenantId};

use super::feed::Told;
use super::reader::Reader;
use crate::app::App;
use crate::auth::Caller;
use crate::places::Place;
use crate::problem::Problem;
use crate::stalled::GivenUp;

/// Where a stream's events go.
pub(super) trait Sink: Send {
    /// Hands events over; `false` if the client is gone. Waits while the client takes nothing.
    fn tell(&mut self, events: &[Arc<Told>]) -> impl Future<Output = bool> + Send;

    /// A sign of life; `false` if the client is gone.
    fn beat(&mut self) -> impl Future<Output = bool> + Send;

    /// Returns when the client is gone.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The job has ended and its last event was sent.
    Over,
    /// The client went away.
    Gone,
    /// The client took nothing for too long.
    Slow,
    /// The key does not count any more.
    Refused,
    /// The host is stopping.
    Stopping,
    /// The events cannot be read.
    Broken,
}

/// A stream that was let in.
pub(super) struct Stream {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    pub(super) reader: Reader,
    /// Whether it ends with an event that ends a job.
    pub(super) one_job: bool,
    pub(super) place: Place,
    pub(super) given_up: GivenUp,
}

impl Stream {
    /// Sends until there is no more to send or nobody to send it to.
    pub(super) async fn run(self, sink: &mut impl Sink) -> End {
        let Self {
            app,
            caller,
            mut reader,
            one_job,
            place: _place,
            given_up,
        } = self;
        let every = Duration::from_secs(app.settings.server_heartbeat_seconds.into());
        let patience = Duration::from_secs(app.settings.server_stall_seconds.into());
        let mut beat = interval_at(tokio::time::Instant::now() + every, every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = true;
        let end = loop {
            let events = tokio::select! {
                biased;
                () = app.stopping.cancelled() => break End::Stopping,
                () = sink.gone() => break End::Gone,
                events = reader.next() => events,
                _ = beat.tick() => {
                    if !caller.still_counts(&app).await {
                        break End::Refused;
                    }
                    if std::mem::replace(&mut quiet, true) {
                        match timeout(patience, sink.beat()).await {
                            Ok(true) => {}
                            Ok(false) => break End::Gone,
                            Err(_late) => break End::Slow,
                        }
                    }
                    continue;
                }
            };
            let events = match events {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(tenant = %caller.id(), %error, "an event stream ends: its events cannot be read");
                    break End::Broken;
                }
            };
            quiet = false;
            let last = events.iter().position(|told| one_job && told.last);
            let told = events.get(..=last.unwrap_or(events.len())).unwrap_or(&events);
            match timeout(patience, sink.tell(told)).await {
                Ok(true) if last.is_some() => break End::Over,
                Ok(true) => {}
                Ok(false) => break End::Gone,
                Err(_late) => break End::Slow,
            }
        };
        // The connection notices first where it has room for events that the client has not taken.
        let end = match end {
            End::Gone if given_up.is_so() => End::Slow,
            end => end,
        };
        if end == End::Slow {
            counter!("weir_event_readers_dropped_total").increment(1);
            tracing::info!(tenant = %caller.id(), "an event stream is dropped: its client takes nothing");
        }
        end
    }
}

/// Where a job's reader begins.
pub(super) enum Begin {
    /// After this number.
    After(u64),
    /// Nothing is left to read: the job has ended and the client has seen it all.
    Ended,
}

/// Checks that the job is there and that `after` is one of its events.
pub(super) async fn begin(app: &App, tenant: &TenantId, job: &JobId, after: u64) -> Result<Begin, Problem> {
    let record = app.ledger.job(tenant, job).await?;
    let record = record.ok_or_else(|| Problem::not_found("there is no such job"))?;
    if after == 0 {
        return Ok(Begin::After(0));
    }
    let from_it = app.ledger.events(tenant, job, after - 1, 2).await?;
    match from_it.as_slice() {
        [at] if at.seq == after && record.state.is_ended() => Ok(Begin::Ended),
        [at, ..] if at.seq == after => Ok(Begin::After(after)),
        _ => Err(Problem::conflict(format!(
            "the job has no event {after}: begin again without a number"
        ))),
    }
}
