//! Waiting for stores on other machines.
//!
//! A store that does not respond is not a fault of a page or a document: the same call succeeds when the store is back. So the calls of
//! a job wait for it. The job fails with no error, and its pages in flight limit how much waits. A job that is stopped drops the
//! waiting call.

use std::time::Duration;

use metrics::counter;
use tokio::time::sleep;
use weir_core::StorageError;

const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Repeats a call of a store until its error is not [`StorageError::Unavailable`].
pub(crate) async fn retry_while_unavailable<T, F>(mut call: impl FnMut() -> F) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let mut backoff = StoreBackoff::default();
    loop {
        match call().await {
            Err(error @ StorageError::Unavailable { .. }) => sleep(backoff.next_delay(&error)).await,
            done => return done,
        }
    }
}

/// The growing delays between the calls of a store that is not available.
#[derive(Default)]
pub(crate) struct StoreBackoff {
    last: Option<Duration>,
}

impl StoreBackoff {
    /// Returns the delay before the next call, with a random part, and logs the first error.
    pub(crate) fn next_delay(&mut self, error: &StorageError) -> Duration {
        counter!("weir_store_retries_total").increment(1);
        let next = match self.last {
            None => {
                tracing::warn!(%error, "a store is not available: the work that needs it waits");
                MIN_BACKOFF
            }
            Some(last) => (last * 2).min(MAX_BACKOFF),
        };
        self.last = Some(next);
        next.mul_f64(0.5 + fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> StorageError {
        StorageError::Unavailable {
            what: "the store".into(),
            reason: "connection refused".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn call_is_repeated_until_the_store_is_available() {
        let mut calls = 0;
        let result = retry_while_unavailable(|| {
            calls += 1;
            std::future::ready(if calls < 12 { Err(unavailable()) } else { Ok(calls) })
        });
        assert_eq!(result.await, Ok(12));
    }

    #[tokio::test(start_paused = true)]
    async fn other_errors_are_returned_at_once() {
        let failed = StorageError::Failed {
            what: "the store".into(),
            reason: "refused".into(),
        };
        let mut calls = 0;
        let result = retry_while_unavailable(|| {
            calls += 1;
            std::future::ready(Err::<(), _>(failed.clone()))
        });
        assert_eq!(result.await, Err(failed));
        assert_eq!(calls, 1);
    }

    #[test]
    fn delays_grow_up_to_a_limit() {
        let mut backoff = StoreBackoff::default();
        let delays: Vec<Duration> = (0..10).map(|_| backoff.next_delay(&unavailable())).collect();
        assert!(delays[0] < MIN_BACKOFF * 2);
        assert!(delays.iter().all(|delay| *delay <= MAX_BACKOFF.mul_f64(1.5)));
        assert!(delays[9] >= MAX_BACKOFF / 2);
    }
}
