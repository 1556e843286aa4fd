//! Limits the number of concurrent streams on the host and for each tenant.
//!
//! A stream costs little but lasts long, so their number has to be bounded. Each stream is served by a task of its own that outlives
//! the request handler. The limiter tracks these tasks, so that the server can wait for their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;
use weir_core::TenantId;

use crate::problem::Problem;

/// `Retry-After` of a refused stream.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Limits one kind of stream.
pub(crate) struct StreamLimiter {
    kind: &'static str,
    max_streams: usize,
    max_streams_per_tenant: usize,
    open_streams: Mutex<OpenStreamCounts>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct OpenStreamCounts {
    total: usize,
    by_tenant: HashMap<TenantId, usize>,
}

/// The right to have one open stream. Dropping it releases the right.
pub(crate) struct StreamPermit {
    limiter: Arc<StreamLimiter>,
    tenant: TenantId,
}

impl StreamLimiter {
    /// Creates a limiter for `all` streams, at most `each` of them for one tenant. `kind` names them in metrics and refusals.
    pub(crate) fn new(kind: &'static str, max_streams: u32, max_streams_per_tenant: u32) -> Arc<Self> {
        Arc::new(Self {
            kind,
            max_streams: max_streams as usize,
            max_streams_per_tenant: max_streams_per_tenant as usize,
            open_streams: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Acquires a permit for a stream of a tenant. Returns a problem with status 429 if a limit is reached.
    pub(crate) fn try_acquire(self: &Arc<Self>, tenant: &TenantId) -> Result<StreamPermit, Problem> {
        let mut open_streams = self.open_streams.lock();
        let tenant_streams = open_streams.by_tenant.get(tenant).copied().unwrap_or(0);
        let (all, each, kind) = (self.max_streams, self.max_streams_per_tenant, self.kind);
        let full = if tenant_streams >= each {
            Some(format!(
                "{each} {kind} streams are open for this tenant: close one, or try again later"
            ))
        } else if open_streams.total >= all {
            Some(format!(
                "{all} {kind} streams are open on this host: try again later"
            ))
        } else {
            None
        };
        if let Some(detail) = full {
            counter!("weir_http_streams_refused_total", "kind" => kind).increment(1);
            return Err(Problem::named_quota_exceeded("streams", detail, RETRY_AFTER));
        }
        open_streams.total += 1;
        open_streams.by_tenant.insert(tenant.clone(), tenant_streams + 1);
        gauge!("weir_http_streams", "kind" => kind).set(open_streams.total as f64);
        Ok(StreamPermit {
            limiter: Arc::clone(self),
            tenant: tenant.clone(),
        })
    }

    /// Returns the number of open streams.
    #[cfg(test)]
    pub(crate) fn open_stream_count(&self) -> usize {
        self.open_streams.lock().total
    }

    /// Spawns and tracks a task that serves a stream.
    pub(crate) fn spawn_stream(&self, serve: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(serve);
    }

    /// Tracks a stream that another task serves, so that [`StreamLimiter::wait_until_closed`] waits for it.
    pub(crate) fn track_stream<F: Future>(&self, serve: F) -> impl Future<Output = F::Output> + use<F> {
        self.tasks.track_future(serve)
    }

    /// Waits until all streams have ended. They end by themselves when the host is stopping.
    pub(crate) async fn wait_until_closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open_streams = self.limiter.open_streams.lock();
        open_streams.total = open_streams.total.saturating_sub(1);
        if let Some(own) = open_streams.by_tenant.get_mut(&self.tenant) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open_streams.by_tenant.remove(&self.tenant);
            }
        }
        gauge!("weir_http_streams", "kind" => self.limiter.kind).set(open_streams.total as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_limited_for_the_host_and_for_each_tenant() {
        let limiter = StreamLimiter::new("event", 3, 2);
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let held = [limiter.try_acquire(&a).unwrap(), limiter.try_acquire(&a).unwrap()];
        assert_eq!(limiter.try_acquire(&a).err().unwrap().status(), 429);
        let other = limiter.try_acquire(&b).unwrap();
        assert_eq!(
            limiter.try_acquire(&b).err().unwrap().status(),
            429,
            "the host is full"
        );
        drop(held);
        let _again = (limiter.try_acquire(&b).unwrap(), limiter.try_acquire(&a).unwrap());
        drop(other);
        assert_eq!(limiter.open_stream_count(), 2);
        assert_eq!(limiter.open_streams.lock().by_tenant.len(), 2);
    }
}
