//! A circuit breaker: a provider that fails is left alone for a while (Nygard, *Release It!*, 2007).
//!
//! It opens when too many of the latest calls fail. It also opens when one call in twenty takes too long, or when too many
//! questions pause before a further try, but then only if another provider can answer: slow is better than nothing, failing is
//! not.
//!
//! It does not flap. Open means left alone for a fixed time at least, whoever recovers sooner. Then a few calls are let through
//! one by one, and all of them must go well, and clearly below the time that opened it, before it closes. One that opens again
//! soon after it closed stays open twice as long each time. So what a provider's trouble can cost is known: at most one
//! change in each such time, and a handful of questions.
//!
//! It knows no clock; the time is an argument.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

use crate::course::Verdict;

/// Calls that are remembered.
const CALLS: usize = 100;
/// How long they are.
const MEMORY: Duration = Duration::from_secs(600);
/// Fewer calls than this say nothing of how many fail.
const CALLS_FOR_ERRORS: usize = 8;
/// Fewer calls than this have no 95th percentile.
const CALLS_FOR_P95: usize = 20;
/// A probe must stay below this part of the time that opens.
const CLEARLY: f64 = 0.8;
/// How often the time it is open doubles, at most.
const DOUBLINGS: u32 = 2;

/// When a breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// Part of the calls that fail, above 0 to 1.
    pub errors: f64,
    /// Time that one call in twenty exceeds.
    pub p95: Duration,
    /// Questions that pause before a further try.
    pub queue: u32,
    /// How long it is open at least.
    pub open: Duration,
    /// Calls that must go well for it to close.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            errors: 0.25,
            p95: Duration::from_secs(30),
            queue: 15,
            open: Duration::from_secs(120),
            probes: 3,
        }
    }
}

/// What a provider is thought of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Well: it is asked.
    Closed,
    /// Left alone.
    Open,
    /// Tried with a few calls.
    HalfOpen,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is left alone from now on, for this reason.
    Opened(String),
    /// It is tried.
    HalfOpened,
    /// It is asked as before.
    Closed,
}

enum State {
    Closed { since: Instant },
    Open { until: Instant },
    HalfOpen { under_way: u32, passed: u32 },
}

/// Lets a call through; a call that began in an earlier state says nothing of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass(u64);

struct Call {
    at: Instant,
    took: Duration,
    bad: bool,
}

/// A provider's breaker.
pub(crate) struct Breaker {
    /// `None`: it never opens.
    config: Option<BreakerConfig>,
    state: State,
    states: u64,
    calls: VecDeque<Call>,
    doublings: u32,
}

impl Breaker {
    /// Closed.
    pub(crate) fn new(config: Option<BreakerConfig>, now: Instant) -> Self {
        Self {
            config,
            state: State::Closed { since: now },
            states: 0,
            calls: VecDeque::with_capacity(CALLS),
            doublings: 0,
        }
    }

    /// What is thought of the provider.
    pub(crate) const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// When it is tried, if it is left alone.
    pub(crate) const fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            _ => None,
        }
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Change> {
        match self.state {
            State::Open { until } if until <= now => {
                self.enter(State::HalfOpen {
                    under_way: 0,
                    passed: 0,
                });
                Some(Change::HalfOpened)
            }
            _ => None,
        }
    }

    /// Whether a call may begin now.
    pub(crate) fn admits(&self) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { .. } => false,
            State::HalfOpen { under_way, passed } => {
                under_way + passed < self.config.map_or(1, |config| config.probes)
            }
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) -> Pass {
        if let State::HalfOpen { under_way, .. } = &mut self.state {
            *under_way += 1;
        }
        Pass(self.states)
    }

    /// A call ended, or is given up after `took`. `others`: whether another provider could have answered.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        pass: Pass,
        verdict: Verdict,
        took: Duration,
        others: bool,
    ) -> Option<Change> {
        let config = self.config?;
        if pass.0 != self.states {
            return None;
        }
        match &mut self.state {
            State::Open { .. } => None,
            State::HalfOpen { under_way, passed } => {
                *under_way = under_way.saturating_sub(1);
                let slow = others && took > config.p95.mul_f64(CLEARLY);
                match verdict {
                    Verdict::Bad => Some(self.open(now, "it failed when it was tried".into())),
                    Verdict::Slow => Some(self.open(now, "it was slow when it was tried".into())),
                    Verdict::Good if slow => Some(self.open(now, "it was slow when it was tried".into())),
                    Verdict::Open => None,
                    Verdict::Good => {
                        *passed += 1;
                        (*passed >= config.probes).then(|| {
                            self.enter(State::Closed { since: now });
                            Change::Closed
                        })
                    }
                }
            }
            State::Closed { .. } => {
                if verdict != Verdict::Open {
                    self.remember(now, took, verdict == Verdict::Bad);
                }
                let reason = self.failing(&config).or_else(|| {
                    let slow = others.then(|| self.slow(&config)).flatten();
                    slow.map(|p95| format!("one call in twenty takes more than {} s", p95.as_secs()))
                })?;
                Some(self.open(now, reason))
            }
        }
    }

    /// So many questions pause before a further try.
    pub(crate) fn crowded(&mut self, now: Instant, pausing: u32, others: bool) -> Option<Change> {
        let config = self.config?;
        let closed = matches!(self.state, State::Closed { .. });
        (closed && others && pausing >= config.queue)
            .then(|| self.open(now, format!("{pausing} questions wait to be tried again")))
    }

    fn remember(&mut self, now: Instant, took: Duration, bad: bool) {
        while self.calls.len() >= CALLS || self.calls.front().is_some_and(|call| call.at + MEMORY <= now) {
            self.calls.pop_front();
        }
        self.calls.push_back(Call { at: now, took, bad });
    }

    fn failing(&self, config: &BreakerConfig) -> Option<String> {
        let (bad, all) = (
            self.calls.iter().filter(|call| call.bad).count(),
            self.calls.len(),
        );
        let failing = all >= CALLS_FOR_ERRORS && bad as f64 >= config.errors * all as f64;
        failing.then(|| format!("{bad} of its last {all} calls failed"))
    }

    fn slow(&self, config: &BreakerConfig) -> Option<Duration> {
        let mut took: Vec<_> = self.calls.iter().map(|call| call.took).collect();
        if took.len() < CALLS_FOR_P95 {
            return None;
        }
        took.sort_unstable();
        let p95 = *took.get((took.len() * 95).div_ceil(100).checked_sub(1)?)?;
        (p95 > config.p95).then_some(p95)
    }

    fn open(&mut self, now: Instant, reason: String) -> Change {
        let open = self.config.map_or(Duration::ZERO, |config| config.open);
        self.doublings = match self.state {
            // It has been well for as long as it would be left alone.
            State::Closed { since } if self.states == 0 || now >= since + open => 0,
            _ => (self.doublings + 1).min(DOUBLINGS),
        };
        self.enter(State::Open {
            until: now + open * (1 << self.doublings),
        });
        Change::Opened(reason)
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.states += 1;
        self.calls.clear();
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
