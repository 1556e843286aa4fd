//! Limits calls and tokens per minute.
//!
//! The limiter records every call of the last minute. A call starts only if the calls of that minute, including it, stay within
//! the limits. The limit therefore holds in every window of a minute. A token bucket would need one number instead of a list,
//! but within one minute it allows a full bucket plus the tokens that are refilled in that minute, which is nearly twice the
//! limit. With a limit of calls, the list is at most as long as that limit.
//!
//! Tokens are estimated when a call starts and corrected when it ends.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

/// One minute, plus one second for differences in network latency.
const WINDOW_LENGTH: Duration = Duration::from_secs(61);

/// Identifies a recorded call, so that its estimated tokens can be corrected.
pub(crate) type RateLimitCallId = u64;

struct WindowCall {
    started_at: Instant,
    tokens: u64,
}

/// Limits the calls and tokens of one provider in a sliding window.
pub(crate) struct RateLimiter {
    max_requests: usize,
    max_tokens: u64,
    calls_in_window: VecDeque<WindowCall>,
    tokens_in_window: u64,
    /// Number of calls that have left the window; it is also the id of the first call in the window.
    expired_calls: RateLimitCallId,
}

impl RateLimiter {
    /// Creates a limiter; 0 means no limit.
    pub(crate) fn new(requests_per_minute: u32, tokens_per_minute: u64) -> Self {
        let unlimited = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Self {
            max_requests: usize::try_from(unlimited(requests_per_minute.into())).unwrap_or(usize::MAX),
            max_tokens: unlimited(tokens_per_minute),
            calls_in_window: VecDeque::new(),
            tokens_in_window: 0,
            expired_calls: 0,
        }
    }

    fn is_unlimited(&self) -> bool {
        self.max_requests == usize::MAX && self.max_tokens == u64::MAX
    }

    fn expire_calls(&mut self, now: Instant) {
        while self
            .calls_in_window
            .front()
            .is_some_and(|call| call.started_at + WINDOW_LENGTH <= now)
        {
            if let Some(call) = self.calls_in_window.pop_front() {
                self.tokens_in_window = self.tokens_in_window.saturating_sub(call.tokens);
                self.expired_calls += 1;
            }
        }
    }

    /// Returns the time at which a call of this many tokens can start; `None` means now. A call that alone exceeds the token
    /// limit starts when the window is empty.
    pub(crate) fn earliest_start(&mut self, now: Instant, tokens: u64) -> Option<Instant> {
        self.expire_calls(now);
        let over_requests = (self.calls_in_window.len() + 1).saturating_sub(self.max_requests);
        let excess = (self.tokens_in_window.saturating_add(tokens)).saturating_sub(self.max_tokens);
        let mut freed = 0;
        let over_tokens = self
            .calls_in_window
            .iter()
            .take_while(|call| {
                let more = freed < excess;
                freed = freed.saturating_add(call.tokens);
                more
            })
            .count();
        let leave = over_requests.max(over_tokens).checked_sub(1)?;
        Some(self.calls_in_window.get(leave)?.started_at + WINDOW_LENGTH)
    }

    /// Records the start of a call.
    pub(crate) fn record_call(&mut self, now: Instant, tokens: u64) -> RateLimitCallId {
        let id = self.expired_calls + self.calls_in_window.len() as u64;
        if !self.is_unlimited() {
            self.calls_in_window.push_back(WindowCall {
                started_at: now,
                tokens,
            });
            self.tokens_in_window = self.tokens_in_window.saturating_add(tokens);
        }
        id
    }

    /// Replaces the estimated tokens of a call by the used ones.
    pub(crate) fn correct_tokens(&mut self, id: RateLimitCallId, tokens: u64) {
        let index = id
            .checked_sub(self.expired_calls)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(call) = index.and_then(|index| self.calls_in_window.get_mut(index)) {
            self.tokens_in_window = self
                .tokens_in_window
                .saturating_sub(call.tokens)
                .saturating_add(tokens);
            call.tokens = tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant_after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    /// Starts calls as soon as the limiter allows, for the given time. Returns the start times in seconds.
    fn simulate_call_starts(limiter: &mut RateLimiter, tokens: u64, seconds: f64) -> Vec<f64> {
        let start = Instant::now();
        let (mut now, mut starts) = (start, Vec::new());
        while now < instant_after(start, seconds) {
            match limiter.earliest_start(now, tokens) {
                Some(later) => {
                    assert!(later > now);
                    now = later;
                }
                None => {
                    limiter.record_call(now, tokens);
                    starts.push(now.duration_since(start).as_secs_f64());
                    now += Duration::from_millis(300);
                }
            }
        }
        starts
    }

    #[test]
    fn no_minute_has_more_calls_than_the_limit() {
        let starts = simulate_call_starts(&mut RateLimiter::new(20, 0), 1, 600.0);
        for (index, from) in starts.iter().enumerate() {
            let within = starts[index..]
                .iter()
                .take_while(|at| **at <= from + 60.0)
                .count();
            assert!(within <= 20, "{within} from {from}");
        }
        assert!(starts.len() >= 196, "{}", starts.len());
    }

    #[test]
    fn token_limit_is_kept_and_used_up() {
        let begun = simulate_call_starts(&mut RateLimiter::new(0, 1000), 300, 610.0);
        assert_eq!(begun.len(), 30, "three a minute: {begun:?}");
    }

    #[test]
    fn overestimated_tokens_are_returned() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(0, 1000);
        let id = limiter.record_call(start, 900);
        assert!(limiter.earliest_start(start, 200).is_some());
        limiter.correct_tokens(id, 100);
        assert!(limiter.earliest_start(start, 900).is_none());
        assert!(limiter.earliest_start(start, 901).is_some());
        limiter.correct_tokens(id + 5, 0);
    }

    #[test]
    fn call_above_the_token_limit_waits_for_an_empty_minute() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(0, 1000);
        assert!(limiter.earliest_start(start, 5000).is_none());
        limiter.record_call(start, 5000);
        assert_eq!(limiter.earliest_start(start, 10), Some(start + WINDOW_LENGTH));
        assert!(limiter.earliest_start(instant_after(start, 61.0), 10).is_none());
    }

    #[test]
    fn unlimited_limiter_records_no_calls() {
        let mut limiter = RateLimiter::new(0, 0);
        for _ in 0..1000 {
            limiter.record_call(Instant::now(), 1_000_000);
        }
        assert!(limiter.calls_in_window.is_empty());
        assert!(limiter.earliest_start(Instant::now(), u64::MAX).is_none());
    }
}
