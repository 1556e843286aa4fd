//! Limits the number of concurrent streams on the host and for each tenant.
//!
//! A stream costs little but lasts long, so their number has to be bounded. Each stream is served by a task of its own that outlives
//! the request handler. The limiter tracks these tasks, so that the server can wait for their end. The limit of a tenant holds for all
//! nodes together, that of the host for this node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use weir_control::SharedLimits;
use weir_core::TenantId;

use crate::problem::Problem;

/// `Retry-After` of a refused stream.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Limits one kind of stream.
pub(crate) struct StreamLimiter {
    kind: &'static str,
    /// The limit of a tenant holds for all nodes together.
    shared_limits: Arc<SharedLimits>,
    max_streams: usize,
    max_streams_per_tenant: u32,
    open_streams: Mutex<OpenStreamCounts>,
    /// Wakes the task that reports open streams to other nodes.
    report_wakeup: Notify,
    tasks: TaskTracker,
}

#[derive(Default)]
struct OpenStreamCounts {
    total: usize,
    by_tenant: HashMap<TenantId, u32>,
    /// Tenants whose count is not the reported one.
    tenants_to_report: HashSet<TenantId>,
}

impl OpenStreamCounts {
    fn count_of_tenant(&self, tenant: &TenantId) -> u32 {
        self.by_tenant.get(tenant).copied().unwrap_or(0)
    }
}

/// The right to have one open stream. Dropping it releases the right.
pub(crate) struct StreamPermit {
    limiter: Arc<StreamLimiter>,
    tenant: TenantId,
}

impl StreamLimiter {
    /// Creates a limiter for `all` streams, at most `each` of them for one tenant. `kind` names them in metrics and refusals.
    pub(crate) fn new(
        kind: &'static str,
        shared_limits: Arc<SharedLimits>,
        max_streams: u32,
        max_streams_per_tenant: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            shared_limits,
            max_streams: max_streams as usize,
            max_streams_per_tenant,
            open_streams: Mutex::default(),
            report_wakeup: Notify::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Acquires a permit for a stream of a tenant. Returns a problem with status 429 if a limit is reached.
    pub(crate) async fn try_acquire(self: &Arc<Self>, tenant: &TenantId) -> Result<StreamPermit, Problem> {
        let (all, each, kind) = (self.max_streams, self.max_streams_per_tenant, self.kind);
        let (permit, own) = self.count_stream(tenant).ok_or_else(|| {
            self.refuse(format!(
                "{all} {kind} streams are open on this host: try again later"
            ))
        })?;
        let name = self.name_in_reports(tenant);
        match own <= each && self.shared_limits.try_set_open_streams(&name, own, each).await {
            true => {
                self.report_if_count_changed(tenant, own);
                Ok(permit)
            }
            false => Err(self.refuse(format!(
                "{each} {kind} streams are open for this tenant: close one, or try again later"
            ))),
        }
    }

    /// Counts a stream, unless the host has as many as it may have. Also returns the number of streams of the tenant.
    fn count_stream(self: &Arc<Self>, tenant: &TenantId) -> Option<(StreamPermit, u32)> {
        let mut open_streams = self.open_streams.lock();
        if open_streams.total >= self.max_streams {
            return None;
        }
        open_streams.total += 1;
        let own = open_streams.by_tenant.entry(tenant.clone()).or_default();
        *own += 1;
        let own = *own;
        gauge!("weir_http_streams", "kind" => self.kind).set(open_streams.total as f64);
        let permit = StreamPermit {
            limiter: Arc::clone(self),
            tenant: tenant.clone(),
        };
        Some((permit, own))
    }

    fn refuse(&self, detail: String) -> Problem {
        counter!("weir_http_streams_refused_total", "kind" => self.kind).increment(1);
        Problem::named_quota_exceeded("streams", detail, RETRY_AFTER)
    }

    fn name_in_reports(&self, tenant: &TenantId) -> String {
        format!("{}:{tenant}", self.kind)
    }

    /// Reports the tenant's count again if it has changed while it was reported: reports can overtake each other.
    fn report_if_count_changed(&self, tenant: &TenantId, reported: u32) {
        let mut open_streams = self.open_streams.lock();
        if open_streams.count_of_tenant(tenant) != reported {
            open_streams.tenants_to_report.insert(tenant.clone());
            self.report_wakeup.notify_one();
        }
    }

    /// Reports the open streams to the other nodes when some have ended, and all from time to time. Never returns.
    pub(crate) async fn report_open_streams(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SharedLimits::REPORT_INTERVAL);
        loop {
            let reports_all = tokio::select! {
                _ = ticks.tick() => true,
                () = self.report_wakeup.notified() => false,
            };
            for (tenant, open) in self.take_counts_to_report(reports_all) {
                let name = self.name_in_reports(&tenant);
                self.shared_limits.report_open_streams(&name, open).await;
            }
        }
    }

    fn take_counts_to_report(&self, all: bool) -> Vec<(TenantId, u32)> {
        let mut open_streams = self.open_streams.lock();
        let mut tenants = std::mem::take(&mut open_streams.tenants_to_report);
        if all {
            tenants.extend(open_streams.by_tenant.keys().cloned());
        }
        tenants
            .into_iter()
            .map(|tenant| {
                let open = open_streams.count_of_tenant(&tenant);
                (tenant, open)
            })
            .collect()
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
        open_streams.tenants_to_report.insert(self.tenant.clone());
        self.limiter.report_wakeup.notify_one();
        gauge!("weir_http_streams", "kind" => self.limiter.kind).set(open_streams.total as f64);
    }
}

#[cfg(test)]
mod tests {
    use weir_control::testing::TestControl;

    use super::*;

    /// Returns the limits of a node without others.
    fn shared_limits() -> Arc<SharedLimits> {
        Arc::clone(&TestControl::new().control.shared_limits)
    }

    #[tokio::test]
    async fn all_counts_are_reported_although_streams_of_others_end() {
        let limiter = StreamLimiter::new("event", shared_limits(), 10, 5);
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let _open = limiter.try_acquire(&a).await.unwrap();
        drop(limiter.try_acquire(&b).await.unwrap());
        assert_eq!(limiter.take_counts_to_report(false), [(b, 0)]);
        assert_eq!(limiter.take_counts_to_report(false), []);
        assert_eq!(limiter.take_counts_to_report(true), [(a.clone(), 1)]);
        limiter.report_if_count_changed(&a, 2);
        assert_eq!(limiter.take_counts_to_report(false), [(a, 1)]);
    }

    #[tokio::test]
    async fn streams_are_limited_for_the_host_and_for_each_tenant() {
        let limiter = StreamLimiter::new("event", shared_limits(), 3, 2);
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let held = [
            limiter.try_acquire(&a).await.unwrap(),
            limiter.try_acquire(&a).await.unwrap(),
        ];
        assert_eq!(limiter.try_acquire(&a).await.err().unwrap().status(), 429);
        let other = limiter.try_acquire(&b).await.unwrap();
        assert_eq!(
            limiter.try_acquire(&b).await.err().unwrap().status(),
            429,
            "the host is full"
        );
        drop(held);
        let _again = (
            limiter.try_acquire(&b).await.unwrap(),
            limiter.try_acquire(&a).await.unwrap(),
        );
        drop(other);
        assert_eq!(limiter.open_stream_count(), 2);
        assert_eq!(limiter.open_streams.lock().by_tenant.len(), 2);
    }
}
