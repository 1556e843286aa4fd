//! The clock of a lane or a tenant: it runs while its owner is inside.

use tokio::time::Instant;

/// Seconds inside, weighted.
pub(super) struct Clock {
    pub(super) had: f64,
    pub(super) inside: u32,
    since: Instant,
    pub(super) weight: f64,
}

impl Clock {
    pub(super) fn new(weight: f64, now: Instant) -> Self {
        Self {
            had: 0.0,
            inside: 0,
            since: now,
            weight,
        }
    }

    pub(super) fn at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.since).as_secs_f64();
        self.had + f64::from(self.inside) * since / self.weight
    }

    pub(super) fn settle(&mut self, now: Instant) {
        self.had = self.at(now);
        self.since = now;
    }

    /// Back among those who are served, who have come as far as `reached`.
    pub(super) fn join(&mut self, reached: f64, now: Instant) {
        self.settle(now);
        self.had = self.had.max(reached);
    }

    pub(super) fn enter(&mut self, now: Instant) {
        self.settle(now);
        self.inside += 1;
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.settle(now);
        self.inside = self.inside.saturating_sub(1);
    }
}
