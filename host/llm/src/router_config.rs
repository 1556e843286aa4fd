//! The configuration of the router.

use std::time::Duration;

use crate::breaker::BreakerConfig;

/// The configuration of the router.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterConfig {
    /// Maximum number of queued requests per tenant.
    pub max_queued_per_tenant: usize,
    /// Number of queued requests of a tenant at which `wait_for_tenant_queue_space` makes callers wait.
    pub backpressure_threshold: usize,
    /// Maximum number of attempts at one provider before another is tried.
    pub max_attempts: u32,
    /// Maximum backoff before the second attempt.
    pub first_backoff: Duration,
    /// Maximum backoff.
    pub max_backoff: Duration,
    /// Whether a request fails when every provider has failed at it. If not, the request waits.
    pub fail_when_unavailable: bool,
    /// The thresholds of the circuit breakers; `None` disables them.
    pub breaker: Option<BreakerConfig>,
    /// Whether the limit of calls in flight adapts to the provider's throughput.
    pub adaptive_concurrency: bool,
    /// Time for which a provider that has denied a call is not called.
    pub denial_cooldown: Duration,
    /// Seed that makes the backoff deterministic.
    pub backoff_seed: Option<u64>,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            max_queued_per_tenant: 1000,
            backpressure_threshold: 800,
            max_attempts: 3,
            first_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(30),
            fail_when_unavailable: false,
            breaker: Some(BreakerConfig::default()),
            adaptive_concurrency: true,
            denial_cooldown: Duration::from_secs(60),
            backoff_seed: None,
        }
    }
}
