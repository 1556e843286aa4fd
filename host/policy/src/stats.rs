//! What components cost: counters that a call touches without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_core::usage::{Meter, Usage};
use weir_core::{PolicyError, TenantId};

use crate::measures::Measures;

/// Nanoseconds of a job's components after which its tenant's meter is told: often enough for a daily limit, and seldom
/// beside calls of a microsecond.
const TOLD_EVERY: u64 = 10_000_000;

/// What the components of one job have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Calls made.
    pub calls: u64,
    /// Calls that were not answered: traps, deadlines, limits.
    pub traps: u64,
    /// Those of them that passed their deadline.
    pub late: u64,
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
    /// Components in memory.
    pub loaded: usize,
}

pub(crate) struct JobMeter {
    tenant: TenantId,
    told: Option<Arc<dyn Meter>>,
    /// Microseconds that the meter has been told of.
    told_micros: AtomicU64,
    calls: AtomicU64,
    traps: AtomicU64,
    late: AtomicU64,
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
    pub(crate) fn new(tenant: TenantId, told: Option<Arc<dyn Meter>>) -> Self {
        Self {
            tenant,
            told,
            told_micros: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            late: AtomicU64::new(0),
            nonsense: AtomicU64::new(0),
            stood_in: AtomicU64::new(0),
            guest_nanos: AtomicU64::new(0),
            host_nanos: AtomicU64::new(0),
        }
    }

    pub(crate) fn called(&self, guest: Duration, host: Duration) {
        add(&self.calls, 1);
        self.ran(guest, host);
    }

    /// A component ran for so long, and waited for the host for so long.
    pub(crate) fn ran(&self, guest: Duration, host: Duration) {
        let spent = nanos(guest);
        let before = self.guest_nanos.fetch_add(spent, Ordering::Relaxed);
        if before / TOLD_EVERY != before.saturating_add(spent) / TOLD_EVERY {
            self.tell();
        }
        if !host.is_zero() {
            add(&self.host_nanos, nanos(host));
        }
    }

    /// Tells the tenant's meter what has been spent since it was told last.
    fn tell(&self) {
        let Some(meter) = &self.told else { return };
        let micros = self.guest_nanos.load(Ordering::Relaxed) / 1000;
        // Of two who come here at once, each tells what the other has not.
        let before = self.told_micros.fetch_max(micros, Ordering::Relaxed);
        if micros > before {
            let usage = Usage {
                guest_micros: micros - before,
                ..Usage::default()
            };
            meter.used(&self.tenant, &usage);
        }
    }

    pub(crate) fn trapped(&self, error: &PolicyError) {
        add(&self.traps, 1);
        if matches!(error, PolicyError::Deadline { .. }) {
            add(&self.late, 1);
        }
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
            late: get(&self.late),
            nonsense: get(&self.nonsense),
            stood_in: get(&self.stood_in),
            guest_time: Duration::from_nanos(get(&self.guest_nanos)),
            host_time: Duration::from_nanos(get(&self.host_nanos)),
        }
    }
}

impl Drop for JobMeter {
    fn drop(&mut self) {
        self.tell();
    }
}

pub(crate) struct HostMeter {
    pub(crate) measures: Measures,
    compilations: AtomicU64,
    loads: AtomicU64,
    instances: AtomicU64,
}

impl HostMeter {
    pub(crate) fn new() -> Self {
        Self {
            measures: Measures::new(),
            compilations: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            instances: AtomicU64::new(0),
        }
    }

    pub(crate) fn compiling(&self) {
        add(&self.compilations, 1);
    }

    pub(crate) fn loaded(&self) {
        add(&self.loads, 1);
    }

    pub(crate) fn instantiated(&self) {
        add(&self.instances, 1);
    }

    pub(crate) fn read(&self, free_places: usize, loaded: usize) -> HostStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HostStats {
            compilations: get(&self.compilations),
            loads: get(&self.loads),
            instances: get(&self.instances),
            free_places,
            loaded,
        }
    }
}
