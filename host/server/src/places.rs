//! Streams open at one time: so many on the host, so many for a tenant.
//!
//! A stream costs little and lasts long, so it is the number that must be bounded. Whoever serves a stream runs as a task of
//! its own that outlives the request's handler; all of them are known here, so that the server can wait for their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;
use weir_core::TenantId;

use crate::problem::Problem;

/// When a refused client may try again.
const AGAIN: Duration = Duration::from_secs(5);

/// Places for one kind of stream.
pub(crate) struct Places {
    kind: &'static str,
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Taken {
    all: usize,
    each: HashMap<TenantId, usize>,
}

/// A taken place, free again when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    tenant: TenantId,
}

impl Places {
    /// Places for `all` streams, at most `each` of them for one tenant. `kind` names them in metrics and refusals.
    pub(crate) fn new(kind: &'static str, all: u32, each: u32) -> Arc<Self> {
        Arc::new(Self {
            kind,
            all: all as usize,
            each: each as usize,
            taken: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// A place for a tenant's stream.
    pub(crate) fn take(self: &Arc<Self>, tenant: &TenantId) -> Result<Place, Problem> {
        let mut taken = self.taken.lock();
        let own = taken.each.get(tenant).copied().unwrap_or(0);
        let (all, each, kind) = (self.all, self.each, self.kind);
        let full = if own >= each {
            Some(format!(
                "{each} {kind} streams are open for this tenant: close one, or try again later"
            ))
        } else if taken.all >= all {
            Some(format!(
                "{all} {kind} streams are open on this host: try again later"
            ))
        } else {
            None
        };
        if let Some(detail) = full {
            counter!("weir_streams_refused_total", "kind" => kind).increment(1);
            return Err(Problem::over_quota("streams", detail, AGAIN));
        }
        taken.all += 1;
        taken.each.insert(tenant.clone(), own + 1);
        gauge!("weir_streams", "kind" => kind).set(taken.all as f64);
        Ok(Place {
            places: Arc::clone(self),
            tenant: tenant.clone(),
        })
    }

    /// Streams open now.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.taken.lock().all
    }

    /// Runs `serve` as a task of its own.
    pub(crate) fn spawn(&self, serve: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(serve);
    }

    /// Makes known to [`Places::ended`] what runs on a task of somebody else's.
    pub(crate) fn track<F: Future>(&self, serve: F) -> impl Future<Output = F::Output> + use<F> {
        self.tasks.track_future(serve)
    }

    /// Returns when all streams have ended. They end by themselves when the host stops.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.each.get_mut(&self.tenant) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.each.remove(&self.tenant);
            }
        }
        gauge!("weir_streams", "kind" => self.places.kind).set(taken.all as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_the_host_and_for_a_tenant() {
        let places = Places::new("event", 3, 2);
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let held = [places.take(&a).unwrap(), places.take(&a).unwrap()];
        assert_eq!(places.take(&a).err().unwrap().status(), 429);
        let other = places.take(&b).unwrap();
        assert_eq!(places.take(&b).err().unwrap().status(), 429, "the host is full");
        drop(held);
        let _again = (places.take(&b).unwrap(), places.take(&a).unwrap());
        drop(other);
        assert_eq!(places.open(), 2);
        assert_eq!(places.taken.lock().each.len(), 2);
    }
}
