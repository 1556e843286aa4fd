//! A circuit breaker: stops calls to a failing provider for a while (Nygard, *Release It!*, 2007).
//!
//! The breaker opens when too many of the latest calls fail. It also opens when the 95th percentile of the call durations is
//! too high, or when too many requests are in backoff, but only if another provider can answer: a slow response is better than
//! none.
//!
//! The breaker does not flap. It stays open for a minimum time, even if the provider recovers sooner. Then it is half-open and
//! allows a few probe calls. It closes only if all probes succeed, with durations clearly below the limit. If it opens again
//! soon after it closed, the open time doubles. This bounds the cost of a failing provider: at most one transition per open
//! time, and a handful of requests.
//!
//! The breaker does not read a clock; the time is an argument.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

use crate::retry_and_health_decision::HealthSignal;

/// Maximum number of recorded calls.
const MAX_RECORDED_CALLS: usize = 100;
/// Maximum age of a recorded call.
const MAX_CALL_AGE: Duration = Duration::from_secs(600);
/// Minimum number of recorded calls to evaluate the error ratio.
const MIN_CALLS_FOR_ERROR_RATIO: usize = 8;
/// Minimum number of recorded calls to evaluate the 95th percentile.
const MIN_CALLS_FOR_P95: usize = 20;
/// A probe must be faster than this fraction of the maximum 95th percentile.
const PROBE_LATENCY_FACTOR: f64 = 0.8;
/// Maximum number of times that the open duration doubles.
const MAX_DOUBLINGS: u32 = 2;

/// The thresholds of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// Fraction of failed calls that opens the breaker, above 0 and at most 1.
    pub max_error_ratio: f64,
    /// 95th percentile of the call durations above which the breaker opens.
    pub max_p95_latency: Duration,
    /// Number of requests in backoff that opens the breaker.
    pub max_backing_off: u32,
    /// Minimum time for which the breaker stays open.
    pub open_duration: Duration,
    /// Successful probe calls that close the breaker.
    pub required_probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            max_error_ratio: 0.25,
            max_p95_latency: Duration::from_secs(30),
            max_backing_off: 15,
            open_duration: Duration::from_secs(120),
            required_probes: 3,
        }
    }
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// The provider is called.
    Closed,
    /// The provider is not called.
    Open,
    /// A few probe calls are allowed.
    HalfOpen,
}

/// A change of the breaker's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BreakerTransition {
    /// The breaker has opened, for this reason.
    Opened(String),
    /// The breaker is half-open.
    HalfOpened,
    /// The breaker has closed.
    Closed,
}

enum BreakerStateData {
    Closed {
        since: Instant,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        probes_in_flight: u32,
        probes_passed: u32,
    },
}

/// Identifies the state in which a call started. Calls that started in an earlier state are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateGeneration(u64);

struct RecordedCall {
    ended_at: Instant,
    duration: Duration,
    failed: bool,
}

/// The circuit breaker of one provider.
pub(crate) struct Breaker {
    /// `None` disables the breaker.
    config: Option<BreakerConfig>,
    state: BreakerStateData,
    generation: u64,
    recent_calls: VecDeque<RecordedCall>,
    doublings: u32,
}

impl Breaker {
    /// Creates a closed breaker.
    pub(crate) fn new(config: Option<BreakerConfig>, now: Instant) -> Self {
        Self {
            config,
            state: BreakerStateData::Closed { since: now },
            generation: 0,
            recent_calls: VecDeque::with_capacity(MAX_RECORDED_CALLS),
            doublings: 0,
        }
    }

    /// The current state.
    pub(crate) const fn state(&self) -> BreakerState {
        match self.state {
            BreakerStateData::Closed { .. } => BreakerState::Closed,
            BreakerStateData::Open { .. } => BreakerState::Open,
            BreakerStateData::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// The time at which the breaker becomes half-open, if it is open.
    pub(crate) const fn open_until(&self) -> Option<Instant> {
        match self.state {
            BreakerStateData::Open { until } => Some(until),
            _ => None,
        }
    }

    /// Makes the breaker half-open if its open time is over.
    pub(crate) fn half_open_if_due(&mut self, now: Instant) -> Option<BreakerTransition> {
        match self.state {
            BreakerStateData::Open { until } if until <= now => {
                self.enter_state_and_clear_calls(BreakerStateData::HalfOpen {
                    probes_in_flight: 0,
                    probes_passed: 0,
                });
                Some(BreakerTransition::HalfOpened)
            }
            _ => None,
        }
    }

    /// Whether a call may start now.
    pub(crate) fn allows_call(&self) -> bool {
        match self.state {
            BreakerStateData::Closed { .. } => true,
            BreakerStateData::Open { .. } => false,
            BreakerStateData::HalfOpen {
                probes_in_flight: in_flight,
                probes_passed: passed,
            } => in_flight + passed < self.config.map_or(1, |config| config.required_probes),
        }
    }

    /// Records the start of a call.
    pub(crate) fn record_call_start(&mut self) -> StateGeneration {
        if let BreakerStateData::HalfOpen {
            probes_in_flight: in_flight,
            ..
        } = &mut self.state
        {
            *in_flight += 1;
        }
        StateGeneration(self.generation)
    }

    /// Records the end of a call, or that it was dropped after `took`. `others` says whether another healthy provider exists.
    pub(crate) fn record_call_end(
        &mut self,
        now: Instant,
        call_generation: StateGeneration,
        signal: HealthSignal,
        took: Duration,
        has_alternative: bool,
    ) -> Option<BreakerTransition> {
        let config = self.config?;
        if call_generation.0 != self.generation {
            return None;
        }
        match &mut self.state {
            BreakerStateData::Open { .. } => None,
            BreakerStateData::HalfOpen {
                probes_in_flight: in_flight,
                probes_passed: passed,
            } => {
                *in_flight = in_flight.saturating_sub(1);
                let slow = has_alternative && took > config.max_p95_latency.mul_f64(PROBE_LATENCY_FACTOR);
                match signal {
                    HealthSignal::Failing => Some(self.open_circuit(now, "a probe call failed".into())),
                    HealthSignal::Slow => Some(self.open_circuit(now, "a probe call was slow".into())),
                    HealthSignal::Healthy if slow => {
                        Some(self.open_circuit(now, "a probe call was slow".into()))
                    }
                    HealthSignal::Unknown => None,
                    HealthSignal::Healthy => {
                        *passed += 1;
                        (*passed >= config.required_probes).then(|| {
                            self.enter_state_and_clear_calls(BreakerStateData::Closed { since: now });
                            BreakerTransition::Closed
                        })
                    }
                }
            }
            BreakerStateData::Closed { .. } => {
                if signal != HealthSignal::Unknown {
                    self.add_recent_call(now, took, signal == HealthSignal::Failing);
                }
                let reason = self.reason_if_error_ratio_exceeded(&config).or_else(|| {
                    let slow = has_alternative
                        .then(|| self.p95_latency_if_exceeded(&config))
                        .flatten();
                    slow.map(|p95| {
                        format!("the 95th percentile of the call durations is {} s", p95.as_secs())
                    })
                })?;
                Some(self.open_circuit(now, reason))
            }
        }
    }

    /// Opens the breaker if too many requests are in backoff.
    pub(crate) fn open_if_many_in_backoff(
        &mut self,
        now: Instant,
        backing_off: u32,
        has_alternative: bool,
    ) -> Option<BreakerTransition> {
        let config = self.config?;
        let closed = matches!(self.state, BreakerStateData::Closed { .. });
        (closed && has_alternative && backing_off >= config.max_backing_off)
            .then(|| self.open_circuit(now, format!("{backing_off} requests are in backoff")))
    }

    fn add_recent_call(&mut self, now: Instant, took: Duration, failed: bool) {
        while self.recent_calls.len() >= MAX_RECORDED_CALLS
            || self
                .recent_calls
                .front()
                .is_some_and(|call| call.ended_at + MAX_CALL_AGE <= now)
        {
            self.recent_calls.pop_front();
        }
        self.recent_calls.push_back(RecordedCall {
            ended_at: now,
            duration: took,
            failed,
        });
    }

    fn reason_if_error_ratio_exceeded(&self, config: &BreakerConfig) -> Option<String> {
        let (bad, all) = (
            self.recent_calls.iter().filter(|call| call.failed).count(),
            self.recent_calls.len(),
        );
        let failing = all >= MIN_CALLS_FOR_ERROR_RATIO && bad as f64 >= config.max_error_ratio * all as f64;
        failing.then(|| format!("{bad} of the last {all} calls failed"))
    }

    fn p95_latency_if_exceeded(&self, config: &BreakerConfig) -> Option<Duration> {
        let mut took: Vec<_> = self.recent_calls.iter().map(|call| call.duration).collect();
        if took.len() < MIN_CALLS_FOR_P95 {
            return None;
        }
        took.sort_unstable();
        let p95 = *took.get((took.len() * 95).div_ceil(100).checked_sub(1)?)?;
        (p95 > config.max_p95_latency).then_some(p95)
    }

    fn open_circuit(&mut self, now: Instant, reason: String) -> BreakerTransition {
        let open = self.config.map_or(Duration::ZERO, |config| config.open_duration);
        self.doublings = match self.state {
            // The provider was healthy for at least the open duration.
            BreakerStateData::Closed { since } if self.generation == 0 || now >= since + open => 0,
            _ => (self.doublings + 1).min(MAX_DOUBLINGS),
        };
        self.enter_state_and_clear_calls(BreakerStateData::Open {
            until: now + open * (1 << self.doublings),
        });
        BreakerTransition::Opened(reason)
    }

    fn enter_state_and_clear_calls(&mut self, state: BreakerStateData) {
        self.state = state;
        self.generation += 1;
        self.recent_calls.clear();
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
