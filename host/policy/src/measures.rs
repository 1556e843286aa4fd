//! What components' calls tell whoever watches the host, by role. The instruments are taken from the recorder once, when
//! the host is made, so that a call of a microsecond does not pay for a look-up.

use metrics::{Counter, Histogram, Unit};
use weir_core::PolicyError;
use weir_core::manifest::Role;

/// Ways a call can fail, as [`PolicyError::kind`] names them.
const KINDS: [&str; 6] = [
    "component-trap",
    "component-deadline",
    "component-limit",
    "component-nonsense",
    "component-unusable",
    "component-exhausted",
];

/// Instruments of all roles, in the order of [`Role::ALL`].
pub(crate) struct Measures([RoleMeasures; Role::ALL.len()]);

struct RoleMeasures {
    /// Seconds that a call ran, without what it waited for the host.
    seconds: Histogram,
    /// Calls that were not answered well, in the order of [`KINDS`].
    failed: [Counter; KINDS.len()],
}

impl Measures {
    pub(crate) fn new() -> Self {
        metrics::describe_histogram!(
            "weir_guest_call_seconds",
            Unit::Seconds,
            "Time that a component ran in a call, without what it waited for the host"
        );
        metrics::describe_counter!(
            "weir_guest_traps_total",
            Unit::Count,
            "Calls of components that were not answered, or with nonsense, by kind"
        );
        Self(Role::ALL.map(|role| RoleMeasures {
            seconds: metrics::histogram!("weir_guest_call_seconds", "role" => role.name()),
            failed: KINDS.map(
                |kind| metrics::counter!("weir_guest_traps_total", "role" => role.name(), "kind" => kind),
            ),
        }))
    }

    /// A call ran.
    pub(crate) fn called(&self, role: Role, seconds: f64) {
        if let Some(measures) = self.0.get(role as usize) {
            measures.seconds.record(seconds);
        }
    }

    /// A call failed.
    pub(crate) fn failed(&self, role: Role, error: &PolicyError) {
        let kind = KINDS.iter().position(|kind| *kind == error.kind());
        let counter = self
            .0
            .get(role as usize)
            .and_then(|measures| measures.failed.get(kind?));
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_numbered_as_they_are_listed() {
        for (place, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, place);
        }
    }
}
