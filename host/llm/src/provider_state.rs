//! The state of one provider: whether it can be called now, and the results of its calls.

use tokio::time::{Duration, Instant};
use weir_core::llm::ProviderError;

use crate::backoff::RandomBackoffDelays;
use crate::breaker::{Breaker, BreakerState, BreakerTransition, StateGeneration};
use crate::concurrency_limiter::{ConcurrencyLimiter, LimitEpoch};
use crate::llm_metrics::{ProviderMetrics, ProviderStats};
use crate::provider::{ProviderEntry, ProviderOptions, ProviderResponse};
use crate::rate_limiter::{RateLimitCallId, RateLimiter};
use crate::retry_and_health_decision::{
    HealthSignal, health_signal_of_error, indicates_overload, is_transient,
};
use crate::router_config::RouterConfig;
use crate::shared_admission::SharedAdmission;

/// Longest `Retry-After` time that the router respects.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// Weight of one call in the moving average of the token factor.
const TOKEN_FACTOR_SMOOTHING: f64 = 0.2;

/// The data of a call in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlightCall {
    breaker_generation: StateGeneration,
    limit_epoch: LimitEpoch,
    rate_limit_id: RateLimitCallId,
    /// Estimated tokens, before the correction by the token factor.
    estimated_tokens: u64,
    calls_in_flight: u32,
    started_at: Instant,
}

/// How a call ended.
pub(crate) enum CallEnd<'a> {
    Succeeded(&'a ProviderResponse),
    Failed(&'a ProviderError),
    /// The caller dropped the request.
    Dropped,
}

/// Whether a provider can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallAvailability {
    /// The provider can be called now.
    Now,
    /// The provider can be called at this time.
    NotBefore(Instant),
    /// The provider can be called after one of its calls ends.
    AfterNextCallEnds,
}

pub(crate) struct ProviderState {
    options: ProviderOptions,
    breaker: Breaker,
    concurrency_limiter: ConcurrencyLimiter,
    rate_limiter: RateLimiter,
    /// The admission by the limits that all nodes share. The limiters above are upper bounds of this node.
    pub(crate) shared_admission: Option<SharedAdmission>,
    /// Ratio of the used tokens to the estimated tokens, as a moving average.
    token_factor: f64,
    metrics: ProviderMetrics,
    /// End of the time for which the provider asked not to be called.
    paused_until: Option<Instant>,
    /// Consecutive rate limit errors.
    consecutive_rate_limits: u32,
    /// Start of the most recently started call that succeeded.
    last_success_started_at: Option<Instant>,
    /// End of the cooldown after the latest denial; `None` if the latest call was not denied.
    denied_until: Option<Instant>,
    denial_cooldown: Duration,
    /// Start of the first call that failed since the last success.
    failing_since: Option<Instant>,
    calls_in_flight: u32,
    /// Requests in backoff before the next call to this provider.
    pub(crate) backing_off: u32,
    slow_threshold: Duration,
    pub(crate) stats: ProviderStats,
    pub(crate) last_error: Option<ProviderError>,
}

impl ProviderState {
    pub(crate) fn new(entry: &ProviderEntry, config: &RouterConfig, now: Instant) -> Self {
        let (options, breaker) = (entry.options, config.breaker);
        let state = Self {
            options,
            breaker: Breaker::new(breaker, now),
            concurrency_limiter: ConcurrencyLimiter::new(
                options.max_concurrency,
                config.adaptive_concurrency,
            ),
            rate_limiter: RateLimiter::new(options.requests_per_minute, options.tokens_per_minute),
            shared_admission: None,
            token_factor: 1.0,
            metrics: ProviderMetrics::for_provider(&entry.name),
            paused_until: None,
            consecutive_rate_limits: 0,
            last_success_started_at: None,
            denied_until: None,
            denial_cooldown: config.denial_cooldown,
            failing_since: None,
            calls_in_flight: 0,
            backing_off: 0,
            slow_threshold: breaker.unwrap_or_default().max_p95_latency,
            stats: ProviderStats {
                name: entry.name.clone(),
                model: entry.provider.model_name().to_owned(),
                ..ProviderStats::default()
            },
            last_error: None,
        };
        state.publish_gauges();
        state
    }

    /// Whether the provider is a fallback.
    pub(crate) const fn is_fallback(&self) -> bool {
        self.options.is_fallback
    }

    /// Whether the breaker is closed and the latest call was not denied.
    pub(crate) fn is_healthy(&self) -> bool {
        self.breaker.state() == BreakerState::Closed && self.denied_until.is_none()
    }

    /// Whether the cooldown after a denial is running.
    pub(crate) fn is_in_denial_cooldown(&self, now: Instant) -> bool {
        self.denied_until.is_some_and(|until| now < until)
    }

    /// Whether the latest call was denied.
    pub(crate) const fn denied_last_call(&self) -> bool {
        self.denied_until.is_some()
    }

    /// The time since the first failure after the last success, with the last error; `None` if the latest call succeeded or was
    /// denied.
    pub(crate) fn current_failure(&self, now: Instant) -> Option<(Duration, &ProviderError)> {
        Some((now.duration_since(self.failing_since?), self.last_error.as_ref()?))
    }

    /// The order in which providers are filled: first those that are half-open or were denied, then the regular ones, then
    /// fallbacks.
    pub(crate) fn dispatch_rank(&self) -> u8 {
        match self.breaker.state() {
            BreakerState::HalfOpen => 0,
            _ if self.denied_until.is_some() => 0,
            _ if self.options.is_fallback => 2,
            _ => 1,
        }
    }

    /// Whether the breaker is open or the cooldown after a denial is running.
    pub(crate) fn is_unavailable(&self, now: Instant) -> bool {
        self.breaker.state() == BreakerState::Open || self.is_in_denial_cooldown(now)
    }

    /// The current limit of calls in flight.
    pub(crate) const fn concurrency_limit(&self) -> u32 {
        self.concurrency_limiter.current_limit()
    }

    /// Whether a call of any size can start.
    pub(crate) fn call_availability(&mut self, now: Instant) -> CallAvailability {
        if let Some(change) = self.breaker.half_open_if_due(now) {
            self.handle_breaker_transition(&change);
        }
        if let Some(rest) = self.paused_until.filter(|rest| *rest > now) {
            return CallAvailability::NotBefore(rest);
        }
        if let Some(until) = self.breaker.open_until() {
            return CallAvailability::NotBefore(until);
        }
        match self.denied_until {
            Some(until) if now < until => return CallAvailability::NotBefore(until),
            // A single call tests whether the provider still denies requests.
            Some(_) if self.calls_in_flight > 0 => return CallAvailability::AfterNextCallEnds,
            _ => {}
        }
        if !self.breaker.allows_call() || self.calls_in_flight >= self.concurrency_limiter.current_limit() {
            return CallAvailability::AfterNextCallEnds;
        }
        self.rate_limiter
            .earliest_start(now, 0)
            .map_or(CallAvailability::Now, CallAvailability::NotBefore)
    }

    /// Returns the time at which a call of this many tokens can start; `None` means now.
    pub(crate) fn earliest_start(&mut self, now: Instant, tokens: u64) -> Option<Instant> {
        let tokens = self.predict_tokens(tokens);
        self.rate_limiter.earliest_start(now, tokens)
    }

    /// Corrects an estimate by the token factor.
    pub(crate) fn predict_tokens(&self, tokens: u64) -> u64 {
        (tokens as f64 * self.token_factor) as u64
    }

    /// Records the start of a call.
    pub(crate) fn record_call_start(&mut self, now: Instant, tokens: u64) -> InFlightCall {
        self.calls_in_flight += 1;
        self.stats.total_calls += 1;
        let likely = self.predict_tokens(tokens);
        let call = InFlightCall {
            breaker_generation: self.breaker.record_call_start(),
            limit_epoch: self.concurrency_limiter.current_epoch(),
            rate_limit_id: self.rate_limiter.record_call(now, likely),
            estimated_tokens: tokens,
            calls_in_flight: self.calls_in_flight,
            started_at: now,
        };
        self.publish_gauges();
        call
    }

    /// Records the end of a call. `others` says whether another provider is healthy.
    pub(crate) fn record_call_end(
        &mut self,
        now: Instant,
        call: InFlightCall,
        end: &CallEnd<'_>,
        has_alternative: bool,
        backoff: &RandomBackoffDelays,
    ) {
        self.calls_in_flight = self.calls_in_flight.saturating_sub(1);
        if let Some(admission) = &mut self.shared_admission {
            admission.end_wait();
        }
        let took = now.duration_since(call.started_at);
        let signal = match end {
            CallEnd::Succeeded(reply) => {
                self.record_success(call, reply, took);
                HealthSignal::Healthy
            }
            CallEnd::Failed(fault) => {
                self.record_failure(now, call, fault, took, backoff);
                health_signal_of_error(fault)
            }
            CallEnd::Dropped => {
                self.stats.dropped_calls += 1;
                self.metrics.record_dropped_call();
                // The full duration is unknown, but the call was slow.
                if took > self.slow_threshold {
                    HealthSignal::Slow
                } else {
                    HealthSignal::Unknown
                }
            }
        };
        if let Some(change) =
            self.breaker
                .record_call_end(now, call.breaker_generation, signal, took, has_alternative)
        {
            self.handle_breaker_transition(&change);
        }
        self.publish_gauges();
    }

    fn record_success(&mut self, call: InFlightCall, reply: &ProviderResponse, took: Duration) {
        self.consecutive_rate_limits = 0;
        self.clear_failure_state();
        self.last_success_started_at = self.last_success_started_at.max(Some(call.started_at));
        self.concurrency_limiter
            .record_success(call.limit_epoch, call.calls_in_flight, took);
        let prompt = u64::from(reply.prompt_tokens.unwrap_or(0));
        let completion = u64::from(reply.completion_tokens.unwrap_or(0));
        if let Some(total) = reply.total_tokens() {
            self.rate_limiter.correct_tokens(call.rate_limit_id, total);
            let each = total as f64 / call.estimated_tokens.max(1) as f64;
            self.token_factor += TOKEN_FACTOR_SMOOTHING * (each.clamp(0.05, 20.0) - self.token_factor);
        }
        let cost = self.options.compute_cost_micros(prompt, completion);
        self.stats.successes += 1;
        self.stats.prompt_tokens += prompt;
        self.stats.completion_tokens += completion;
        self.stats.cost_micros += cost;
        self.metrics.record_success(took, prompt, completion, cost);
    }

    /// Records that the provider accepts requests: it answers them, or refuses one because of its content.
    fn clear_failure_state(&mut self) {
        self.failing_since = None;
        if self.denied_until.take().is_some() {
            tracing::info!(
                provider = self.stats.name,
                "the language model provider accepts requests again"
            );
        }
    }

    /// Records that the provider denies all requests until its settings or its account change.
    fn record_denial(&mut self, now: Instant, fault: &ProviderError) {
        self.failing_since = None;
        let until = now + self.denial_cooldown;
        if self.denied_until.replace(until).is_none() {
            tracing::warn!(
                provider = self.stats.name,
                error = fault.describe_with_provider(&self.stats.name),
                pause_seconds = self.denial_cooldown.as_secs(),
                "the language model provider denies requests"
            );
        }
    }

    fn record_failure(
        &mut self,
        now: Instant,
        call: InFlightCall,
        fault: &ProviderError,
        took: Duration,
        backoff: &RandomBackoffDelays,
    ) {
        tracing::debug!(provider = %self.stats.name, %fault, ?took, "a language model call failed");
        if fault.is_denied_by_provider() {
            self.record_denial(now, fault);
        } else if is_transient(fault) {
            self.denied_until = None;
            self.failing_since.get_or_insert(call.started_at);
        } else {
            self.clear_failure_state();
        }
        self.stats.failures += 1;
        if matches!(
            fault,
            ProviderError::TimedOut { .. } | ProviderError::Stalled { .. }
        ) {
            self.stats.timeouts += 1;
        }
        self.metrics.record_failure(fault, took);
        if indicates_overload(fault) {
            let later_call_succeeded = self
                .last_success_started_at
                .is_some_and(|began| began > call.started_at);
            self.concurrency_limiter
                .reduce_on_overload(call.limit_epoch, later_call_succeeded);
        }
        let rest = match fault {
            ProviderError::RateLimited { after } => {
                self.consecutive_rate_limits = self.consecutive_rate_limits.saturating_add(1);
                Some(
                    after
                        .unwrap_or_else(|| backoff.random_delay_after_failures(self.consecutive_rate_limits)),
                )
            }
            ProviderError::ServerError { after, .. } => *after,
            _ => None,
        };
        if let Some(rest) = rest {
            let until = now + rest.min(MAX_RETRY_AFTER);
            self.paused_until = Some(self.paused_until.map_or(until, |known| known.max(until)));
        }
        self.stats.last_error = Some(fault.to_string());
        self.last_error = Some(fault.clone());
    }

    /// Records that a request waits before its next call to this provider. `others` says whether another provider is healthy.
    pub(crate) fn record_backoff_start(&mut self, now: Instant, has_alternative: bool) {
        self.backing_off += 1;
        self.metrics.record_retry();
        if let Some(change) = self
            .breaker
            .open_if_many_in_backoff(now, self.backing_off, has_alternative)
        {
            self.handle_breaker_transition(&change);
        }
    }

    fn handle_breaker_transition(&mut self, change: &BreakerTransition) {
        let name = self.stats.name.as_str();
        match change {
            BreakerTransition::Opened(reason) => {
                tracing::warn!(
                    provider = name,
                    reason,
                    "the circuit breaker of a language model has opened"
                );
                self.stats.breaker_openings += 1;
            }
            BreakerTransition::HalfOpened => tracing::info!(
                provider = name,
                "the circuit breaker of a language model is half-open"
            ),
            BreakerTransition::Closed => {
                tracing::info!(
                    provider = name,
                    "the circuit breaker of a language model has closed"
                );
                self.concurrency_limiter.restore_proven_limit();
            }
        }
        self.metrics.record_breaker_transition(change);
        self.publish_gauges();
    }

    fn publish_gauges(&self) {
        self.metrics.set_gauges(
            self.breaker.state(),
            self.concurrency_limiter.current_limit(),
            self.calls_in_flight,
        );
        self.metrics
            .set_provider_denied_gauge(self.denied_until.is_some());
    }

    pub(crate) fn stats(&self) -> ProviderStats {
        let state = match self.breaker.state() {
            _ if self.denied_until.is_some() => "denied",
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half-open",
            BreakerState::Open => "open",
        };
        ProviderStats {
            state: state.into(),
            calls_in_flight: self.calls_in_flight,
            concurrency_limit: self.concurrency_limiter.current_limit(),
            ..self.stats.clone()
        }
    }
}
