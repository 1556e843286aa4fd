//! Metrics of policy calls by role.
//!
//! The instruments are looked up once, when the host is created, so that a call of a microsecond does not pay for a lookup.

use metrics::{Counter, Histogram, Unit};
use weir_core::PolicyError;
use weir_core::manifest::Role;

/// All values of [`PolicyError::kind`].
const ERROR_KINDS: [&str; 6] = [
    "component-trap",
    "component-timeout",
    "component-limit",
    "component-invalid-decision",
    "component-unusable",
    "component-exhausted",
];

/// Instruments of all roles, in the order of [`Role::ALL`].
pub(crate) struct CallMetrics([RoleMetrics; Role::ALL.len()]);

struct RoleMetrics {
    /// Seconds that a call ran, without waits for the host.
    call_seconds: Histogram,
    /// Failed calls by error kind, in the order of [`ERROR_KINDS`].
    failures: [Counter; ERROR_KINDS.len()],
}

impl CallMetrics {
    pub(crate) fn new() -> Self {
        metrics::describe_histogram!(
            "weir_policy_call_cpu_seconds",
            Unit::Seconds,
            "Time of a policy call without the waits for host calls, by role"
        );
        metrics::describe_counter!(
            "weir_policy_call_failures_total",
            Unit::Count,
            "Failed policy calls, by role and error kind"
        );
        Self(Role::ALL.map(|role| RoleMetrics {
            call_seconds: metrics::histogram!("weir_policy_call_cpu_seconds", "role" => role.name()),
            failures: ERROR_KINDS.map(
                |kind| metrics::counter!("weir_policy_call_failures_total", "role" => role.name(), "kind" => kind),
            ),
        }))
    }

    pub(crate) fn record_call_duration(&self, role: Role, seconds: f64) {
        if let Some(role_metrics) = self.0.get(role as usize) {
            role_metrics.call_seconds.record(seconds);
        }
    }

    pub(crate) fn count_failure_by_kind(&self, role: Role, error: &PolicyError) {
        let kind = ERROR_KINDS.iter().position(|kind| *kind == error.kind());
        let counter = self
            .0
            .get(role as usize)
            .and_then(|role_metrics| role_metrics.failures.get(kind?));
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_numbered_in_list_order() {
        for (index, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, index);
        }
    }
}
