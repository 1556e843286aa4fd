//! Counters of policy calls and of components' CPU time, updated without locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_core::usage::{Usage, UsageMeter};
use weir_core::{PolicyError, TenantId};

use crate::call_metrics::CallMetrics;
use crate::instance::cpu_budget::to_nanos;

/// Nanoseconds of a job's component time after which usage is reported. Often enough for a daily limit, and rare compared with
/// calls of a microsecond.
const USAGE_REPORT_NANOS: u64 = 10_000_000;

/// Counters of one job's components.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobPolicyCallStats {
    /// Policy calls.
    pub calls: u64,
    /// Calls that did not return a decision: traps, timeouts, exceeded limits.
    pub failed_calls: u64,
    /// Failed calls that exceeded their timeout.
    pub timeouts: u64,
    /// Calls that returned a decision outside the ranges of the contract.
    pub invalid_decisions: u64,
    /// Calls of a default component after another component failed.
    pub fallback_calls: u64,
    /// Time that components ran, without waits for the host.
    pub guest_time: Duration,
    /// Time that components waited for the host.
    pub host_wait_time: Duration,
}

/// Counters of the policy host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Child processes started to compile components.
    pub compilations: u64,
    /// Components loaded from the cache of compiled code.
    pub cache_loads: u64,
    /// Instances created.
    pub instances_created: u64,
    /// Instances that jobs can still reserve.
    pub free_instances: usize,
    /// Components loaded in memory.
    pub loaded_components: usize,
}

pub(crate) struct JobCounters {
    tenant: TenantId,
    usage_meter: Option<Arc<dyn UsageMeter>>,
    /// Microseconds already reported to the usage sink.
    reported_micros: AtomicU64,
    calls: AtomicU64,
    failed_calls: AtomicU64,
    timeouts: AtomicU64,
    invalid_decisions: AtomicU64,
    fallback_calls: AtomicU64,
    guest_nanos: AtomicU64,
    host_wait_nanos: AtomicU64,
}

fn add_to_counter(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl JobCounters {
    pub(crate) fn new(tenant: TenantId, meter: Option<Arc<dyn UsageMeter>>) -> Self {
        Self {
            tenant,
            usage_meter: meter,
            reported_micros: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            failed_calls: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            invalid_decisions: AtomicU64::new(0),
            fallback_calls: AtomicU64::new(0),
            guest_nanos: AtomicU64::new(0),
            host_wait_nanos: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_call_and_time(&self, guest: Duration, host: Duration) {
        add_to_counter(&self.calls, 1);
        self.add_run_and_wait_time(guest, host);
    }

    /// Adds the time that a component ran and the time that it waited for the host.
    pub(crate) fn add_run_and_wait_time(&self, guest: Duration, host: Duration) {
        let guest_nanos_of_call = to_nanos(guest);
        let before = self.guest_nanos.fetch_add(guest_nanos_of_call, Ordering::Relaxed);
        if before / USAGE_REPORT_NANOS != before.saturating_add(guest_nanos_of_call) / USAGE_REPORT_NANOS {
            self.report_usage();
        }
        if !host.is_zero() {
            add_to_counter(&self.host_wait_nanos, to_nanos(host));
        }
    }

    /// Reports the time since the last report to the usage sink.
    fn report_usage(&self) {
        let Some(meter) = &self.usage_meter else { return };
        let micros = self.guest_nanos.load(Ordering::Relaxed) / 1000;
        // Of two concurrent reports, each reports only the time that the other does not.
        let before = self.reported_micros.fetch_max(micros, Ordering::Relaxed);
        if micros > before {
            let usage = Usage {
                guest_micros: micros - before,
                ..Usage::default()
            };
            meter.record_usage(&self.tenant, &usage);
        }
    }

    pub(crate) fn count_failed_call(&self, error: &PolicyError) {
        add_to_counter(&self.failed_calls, 1);
        if matches!(error, PolicyError::CallTimeout { .. }) {
            add_to_counter(&self.timeouts, 1);
        }
    }

    pub(crate) fn count_invalid_decision(&self) {
        add_to_counter(&self.invalid_decisions, 1);
    }

    pub(crate) fn count_fallback_call(&self) {
        add_to_counter(&self.fallback_calls, 1);
    }

    pub(crate) fn snapshot(&self) -> JobPolicyCallStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JobPolicyCallStats {
            calls: get(&self.calls),
            failed_calls: get(&self.failed_calls),
            timeouts: get(&self.timeouts),
            invalid_decisions: get(&self.invalid_decisions),
            fallback_calls: get(&self.fallback_calls),
            guest_time: Duration::from_nanos(get(&self.guest_nanos)),
            host_wait_time: Duration::from_nanos(get(&self.host_wait_nanos)),
        }
    }
}

impl Drop for JobCounters {
    fn drop(&mut self) {
        self.report_usage();
    }
}

pub(crate) struct HostCounters {
    pub(crate) call_metrics: CallMetrics,
    compilations: AtomicU64,
    cache_loads: AtomicU64,
    instances_created: AtomicU64,
}

impl HostCounters {
    pub(crate) fn new() -> Self {
        Self {
            call_metrics: CallMetrics::new(),
            compilations: AtomicU64::new(0),
            cache_loads: AtomicU64::new(0),
            instances_created: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_compilation(&self) {
        add_to_counter(&self.compilations, 1);
    }

    pub(crate) fn count_load_from_cache(&self) {
        add_to_counter(&self.cache_loads, 1);
    }

    pub(crate) fn count_created_instance(&self) {
        add_to_counter(&self.instances_created, 1);
    }

    pub(crate) fn snapshot(&self, free_permits: usize, loaded: usize) -> HostStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HostStats {
            compilations: get(&self.compilations),
            cache_loads: get(&self.cache_loads),
            instances_created: get(&self.instances_created),
            free_instances: free_permits,
            loaded_components: loaded,
        }
    }
}
