//! The service clock of a lane or a tenant. It advances while its owner holds permits.

use tokio::time::Instant;

/// The weighted seconds of held permits.
pub(super) struct ServiceClock {
    pub(super) seconds: f64,
    pub(super) inside: u32,
    since: Instant,
    pub(super) weight: f64,
}

impl ServiceClock {
    pub(super) fn new(weight: f64, now: Instant) -> Self {
        Self {
            seconds: 0.0,
            inside: 0,
            since: now,
            weight,
        }
    }

    pub(super) fn seconds_at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.since).as_secs_f64();
        self.seconds + f64::from(self.inside) * since / self.weight
    }

    pub(super) fn update(&mut self, now: Instant) {
        self.seconds = self.seconds_at(now);
        self.since = now;
    }

    /// Sets the clock to virtual time if it is behind, since its owner becomes active again.
    pub(super) fn catch_up_to(&mut self, reached: f64, now: Instant) {
        self.update(now);
        self.seconds = self.seconds.max(reached);
    }

    pub(super) fn start_slot(&mut self, now: Instant) {
        self.update(now);
        self.inside += 1;
    }

    pub(super) fn end_slot(&mut self, now: Instant) {
        self.update(now);
        self.inside = self.inside.saturating_sub(1);
    }
}
