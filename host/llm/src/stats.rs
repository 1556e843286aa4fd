//! Statistics of the router and of its providers.

use serde::{Deserialize, Serialize};

/// The state and the counters of one provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderStats {
    /// The name of the provider.
    pub name: String,
    /// The name of its model.
    pub model: String,
    /// `closed`, `half-open` or `open` after the circuit breaker, or `denied` if the latest call was denied.
    pub state: String,
    /// Calls in flight.
    pub calls_in_flight: u32,
    /// Current limit of calls in flight.
    pub concurrency_limit: u32,
    /// Calls started.
    pub total_calls: u64,
    /// Successful calls.
    pub successes: u64,
    /// Failed calls.
    pub failures: u64,
    /// Calls that the caller dropped.
    pub dropped_calls: u64,
    /// Failed calls that timed out or stalled.
    pub timeouts: u64,
    /// Number of times that the circuit breaker has opened.
    pub breaker_openings: u64,
    /// Tokens of requests, as far as the provider reports them.
    pub prompt_tokens: u64,
    /// Tokens of responses, as far as the provider reports them.
    pub completion_tokens: u64,
    /// Cost of the calls, in millionths of the currency of the prices.
    pub cost_micros: u64,
    /// The latest error.
    pub last_error: Option<String>,
}

/// The state of the router.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterStats {
    /// Requests in the queue.
    pub queued_requests: usize,
    /// The providers, in order of preference.
    pub providers: Vec<ProviderStats>,
}
