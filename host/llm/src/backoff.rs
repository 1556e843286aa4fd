//! Exponential backoff with full jitter.
//!
//! Each delay is uniformly distributed between zero and a ceiling that doubles with every attempt. Requests that failed
//! together therefore retry at different times. Of the common jitter strategies, this one causes the least total work (Brooker,
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use parking_lot::Mutex;

/// Draws random delays.
pub(crate) struct RandomBackoffDelays {
    first_ceiling: Duration,
    max_delay: Duration,
    rng: Mutex<fastrand::Rng>,
}

impl RandomBackoffDelays {
    /// The first delay is at most `first`, and no delay exceeds `most`. With a seed, the sequence of delays is deterministic.
    pub(crate) fn new(first: Duration, max_delay: Duration, seed: Option<u64>) -> Self {
        Self {
            first_ceiling: first,
            max_delay,
            rng: Mutex::new(seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)),
        }
    }

    /// Returns the delay after the given number of failures, which is at least 1.
    pub(crate) fn random_delay_after_failures(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let ceiling = self.first_ceiling.saturating_mul(doubled).min(self.max_delay);
        ceiling.mul_f64(self.rng.lock().f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_uniform_below_a_doubling_ceiling() {
        let second = Duration::from_secs(1);
        let backoff = RandomBackoffDelays::new(second, 10 * second, Some(7));
        for (failures, ceiling) in [(1, 1), (2, 2), (4, 8), (5, 10), (40, 10), (u32::MAX, 10)] {
            let ceiling = ceiling * second;
            let drawn: Vec<_> = (0..1000)
                .map(|_| backoff.random_delay_after_failures(failures))
                .collect();
            let mean = drawn.iter().sum::<Duration>() / 1000;
            assert!(drawn.iter().all(|pause| *pause <= ceiling));
            assert!(
                mean > ceiling.mul_f64(0.45) && mean < ceiling.mul_f64(0.55),
                "{mean:?}"
            );
        }
        let again = RandomBackoffDelays::new(second, 10 * second, Some(7));
        let other = RandomBackoffDelays::new(second, 10 * second, Some(7));
        assert_eq!(
            again.random_delay_after_failures(3),
            other.random_delay_after_failures(3)
        );
    }
}
