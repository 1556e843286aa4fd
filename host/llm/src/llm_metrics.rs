//! The metrics and the statistics of the router and of its providers, and the metrics of the response cache. Most handles of metrics
//! are created once. Only handles whose labels are not known in advance, such as the kind of an error, are created on demand.

use metrics::{Counter, Gauge, Histogram};
use serde::{Deserialize, Serialize};
use tokio::time::Duration;
use weir_core::llm::{LlmRequestKind, ProviderError};

use crate::breaker::{BreakerState, BreakerTransition};

/// The metrics of one provider.
pub(crate) struct ProviderMetrics {
    provider_name: String,
    successes: Counter,
    call_seconds: Histogram,
    retries: Counter,
    timeouts: Counter,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    cost_micros: Counter,
    breaker_state: Gauge,
    denied: Gauge,
    concurrency_limit: Gauge,
    calls_in_flight: Gauge,
}

impl ProviderMetrics {
    pub(crate) fn for_provider(name: &str) -> Self {
        let label = name.to_owned();
        Self {
            successes: metrics::counter!("weir_llm_calls_total", "provider" => label.clone(), "outcome" => "success"),
            call_seconds: metrics::histogram!("weir_llm_call_duration_seconds", "provider" => label.clone()),
            retries: metrics::counter!("weir_llm_retries_total", "provider" => label.clone()),
            timeouts: metrics::counter!("weir_llm_call_timeouts_total", "provider" => label.clone()),
            prompt_tokens: metrics::counter!("weir_llm_tokens_total", "provider" => label.clone(), "type" => "prompt"),
            completion_tokens: metrics::counter!("weir_llm_tokens_total", "provider" => label.clone(), "type" => "completion"),
            cost_micros: metrics::counter!("weir_llm_cost_micros_total", "provider" => label.clone()),
            breaker_state: metrics::gauge!("weir_llm_breaker_state", "provider" => label.clone()),
            denied: metrics::gauge!("weir_llm_provider_denied", "provider" => label.clone()),
            concurrency_limit: metrics::gauge!("weir_llm_concurrency_limit", "provider" => label.clone()),
            calls_in_flight: metrics::gauge!("weir_llm_calls_in_flight", "provider" => label),
            provider_name: name.to_owned(),
        }
    }

    pub(crate) fn record_success(&self, took: Duration, prompt: u64, completion: u64, cost_micros: u64) {
        self.successes.increment(1);
        self.call_seconds.record(took.as_secs_f64());
        self.prompt_tokens.increment(prompt);
        self.completion_tokens.increment(completion);
        self.cost_micros.increment(cost_micros);
    }

    pub(crate) fn record_failure(&self, fault: &ProviderError, took: Duration) {
        metrics::counter!("weir_llm_calls_total", "provider" => self.provider_name.clone(), "outcome" => fault.kind())
            .increment(1);
        self.call_seconds.record(took.as_secs_f64());
        if matches!(
            fault,
            ProviderError::TimedOut { .. } | ProviderError::Stalled { .. }
        ) {
            self.timeouts.increment(1);
        }
    }

    pub(crate) fn record_dropped_call(&self) {
        metrics::counter!("weir_llm_calls_total", "provider" => self.provider_name.clone(), "outcome" => "dropped")
            .increment(1);
    }

    pub(crate) fn record_retry(&self) {
        self.retries.increment(1);
    }

    pub(crate) fn record_breaker_transition(&self, change: &BreakerTransition) {
        let state = match change {
            BreakerTransition::Opened(_) => "open",
            BreakerTransition::HalfOpened => "half-open",
            BreakerTransition::Closed => "closed",
        };
        metrics::counter!("weir_llm_breaker_transitions_total", "provider" => self.provider_name.clone(), "to" => state)
            .increment(1);
    }

    /// Sets whether the provider denied its latest call.
    pub(crate) fn set_provider_denied_gauge(&self, denies: bool) {
        self.denied.set(f64::from(u8::from(denies)));
    }

    pub(crate) fn set_gauges(&self, state: BreakerState, limit: u32, in_flight: u32) {
        self.breaker_state.set(match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
        self.concurrency_limit.set(limit);
        self.calls_in_flight.set(in_flight);
    }
}

/// The metrics of the queue and of requests.
pub(crate) struct QueueAndRequestTimeMetrics {
    pub(crate) queue_depth: Gauge,
    pub(crate) failovers: Counter,
    request_seconds: [Histogram; LlmRequestKind::ALL.len()],
    wait_seconds: Histogram,
}

impl QueueAndRequestTimeMetrics {
    pub(crate) fn new(capacity: usize) -> Self {
        metrics::gauge!("weir_llm_queue_capacity_per_tenant").set(capacity as f64);
        Self {
            queue_depth: metrics::gauge!("weir_llm_queue_depth"),
            failovers: metrics::counter!("weir_llm_failovers_total"),
            request_seconds: LlmRequestKind::ALL
                .map(|kind| metrics::histogram!("weir_llm_request_duration_seconds", "kind" => kind.name())),
            wait_seconds: metrics::histogram!("weir_llm_request_queue_and_backoff_seconds"),
        }
    }

    pub(crate) fn record_request_times(&self, kind: LlmRequestKind, waited: Duration, spent: Duration) {
        if let Some(seconds) = self.request_seconds.get(kind as usize) {
            seconds.record((waited + spent).as_secs_f64());
        }
        self.wait_seconds.record(waited.as_secs_f64());
    }
}

/// The metrics of the response cache.
pub(crate) struct CacheMetrics {
    pub(crate) hits: Counter,
    pub(crate) shared: Counter,
    pub(crate) misses: Counter,
}

impl CacheMetrics {
    pub(crate) fn new() -> Self {
        let of = |outcome| metrics::counter!("weir_llm_response_cache_lookups_total", "outcome" => outcome);
        Self {
            hits: of("hit"),
            shared: of("shared"),
            misses: of("miss"),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_kinds_are_numbered_in_list_order() {
        for (index, kind) in LlmRequestKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
