//! Pauses between tries: exponential, with full jitter.
//!
//! Each pause is drawn evenly between nothing and a ceiling that doubles with every try. Questions that failed together then
//! come back apart, and of the usual ways to spread them this one does the least work in all (Brooker, "Exponential Backoff
//! And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use parking_lot::Mutex;

/// Draws pauses.
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    random: Mutex<fastrand::Rng>,
}

impl Backoff {
    /// The first pause is at most `first`, none is longer than `most`. With a seed the pauses are the same every time.
    pub(crate) fn new(first: Duration, most: Duration, seed: Option<u64>) -> Self {
        Self {
            first,
            most,
            random: Mutex::new(seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)),
        }
    }

    /// The pause after this many failures, at least 1.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let ceiling = self.first.saturating_mul(doubled).min(self.most);
        ceiling.mul_f64(self.random.lock().f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_fill_the_room_below_a_ceiling_that_doubles_up_to_the_most() {
        let second = Duration::from_secs(1);
        let backoff = Backoff::new(second, 10 * second, Some(7));
        for (failures, ceiling) in [(1, 1), (2, 2), (4, 8), (5, 10), (40, 10), (u32::MAX, 10)] {
            let ceiling = ceiling * second;
            let drawn: Vec<_> = (0..1000).map(|_| backoff.after(failures)).collect();
            let mean = drawn.iter().sum::<Duration>() / 1000;
            assert!(drawn.iter().all(|pause| *pause <= ceiling));
            assert!(
                mean > ceiling.mul_f64(0.45) && mean < ceiling.mul_f64(0.55),
                "{mean:?}"
            );
        }
        let again = Backoff::new(second, 10 * second, Some(7));
        let other = Backoff::new(second, 10 * second, Some(7));
        assert_eq!(again.after(3), other.after(3));
    }
}
