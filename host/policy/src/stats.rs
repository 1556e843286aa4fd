//! What components cost: counters that a call touches without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the components of one job have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Calls made.
    pub calls: u64,
    /// Calls that were not answered: traps, deadlines, limits.
    pub traps: u64,
    /// Calls that were answered with nonsense.
    pub nonsense: u64,
    /// Calls that a default component answered in place of another.
    pub stood_in: u64,
    /// Time spent in components, without what they waited for the host.
    pub guest_time: Duration,
    /// Time components waited for capabilities.
    pub host_time: Duration,
}

/// What the host has done for components so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Child processes started to compile a component.
    pub compilations: u64,
    /// Components loaded from the cache of compiled ones.
    pub loads: u64,
    /// Instances made.
    pub instances: u64,
    /// Places for instances that are free.
    pub free_places: usize,
}

#[derive(Default)]
pub(crate) struct JobMeter {
    calls: AtomicU64,
    traps: AtomicU64,
    nonsense: AtomicU64,
    stood_in: AtomicU64,
    guest_nanos: AtomicU64,
    host_nanos: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl JobMeter {
    pub(crate) fn called(&self, guest: Duration, host: Duration) {
        add(&self.calls, 1);
        add(&self.guest_nanos, nanos(guest));
        if !host.is_zero() {
            add(&self.host_nanos, nanos(host));
        }
    }

    pub(crate) fn trapped(&self) {
        add(&self.traps, 1);
    }

    pub(crate) fn nonsense(&self) {
        add(&self.nonsense, 1);
    }

    pub(crate) fn stood_in(&self) {
        add(&self.stood_in, 1);
    }

    pub(crate) fn read(&self) -> JobStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JobStats {
            calls: get(&self.calls),
            traps: get(&self.traps),
            nonsense: get(&self.nonsense),
            stood_in: get(&self.stood_in),
            guest_time: Duration::from_nanos(get(&self.guest_nanos)),
            host_time: Duration::from_nanos(get(&self.host_nanos)),
        }
    }
}

#[derive(Default)]
pub(crate) struct HostMeter {
    compilations: AtomicU64,
    loads: AtomicU64,
    instances: AtomicU64,
}

impl HostMeter {
    pub(crate) fn compiling(&self) {
        add(&self.compilations, 1);
    }

    pub(crate) fn loaded(&self) {
        add(&self.loads, 1);
    }

    pub(crate) fn instantiated(&self) {
        add(&self.instances, 1);
    }

    pub(crate) fn read(&self, free_places: usize) -> HostStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HostStats {
            compilations: get(&self.compilations),
            loads: get(&self.loads),
            instances: get(&self.instances),
            free_places,
        }
    }
}
