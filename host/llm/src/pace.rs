//! Calls and tokens a minute.
//!
//! Every call of the last minute is remembered, and a call begins only if with it no more stand in that minute than may.
//! That is exact for whoever counts in any window of a minute. A token bucket holds one number instead of a list and spreads calls as
//! well, but lets a full bucket and a minute's refill through within one minute, which is nearly twice what was stated. The list
//! is as long as the limit.
//!
//! Tokens are estimated when a call begins and corrected when it ends, since only then is it known what it took.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

/// A minute, and a second for the ways there to differ in length.
const WINDOW: Duration = Duration::from_secs(61);

/// Names a call, for its tokens to be corrected.
pub(crate) type PaceId = u64;

struct Call {
    at: Instant,
    tokens: u64,
}

/// The calls of the last minute.
pub(crate) struct Pace {
    requests: usize,
    tokens: u64,
    calls: VecDeque<Call>,
    spent: u64,
    /// Calls that have been forgotten; the first that is remembered has this id.
    forgotten: PaceId,
}

impl Pace {
    /// 0 is no limit.
    pub(crate) fn new(requests_per_minute: u32, tokens_per_minute: u64) -> Self {
        let unlimited = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Self {
            requests: usize::try_from(unlimited(requests_per_minute.into())).unwrap_or(usize::MAX),
            tokens: unlimited(tokens_per_minute),
            calls: VecDeque::new(),
            spent: 0,
            forgotten: 0,
        }
    }

    fn unlimited(&self) -> bool {
        self.requests == usize::MAX && self.tokens == u64::MAX
    }

    fn forget(&mut self, now: Instant) {
        while self.calls.front().is_some_and(|call| call.at + WINDOW <= now) {
            if let Some(call) = self.calls.pop_front() {
                self.spent = self.spent.saturating_sub(call.tokens);
                self.forgotten += 1;
            }
        }
    }

    /// When a call of so many tokens may begin; `None`: now. One that is larger than a minute's tokens has a minute to itself.
    pub(crate) fn wait(&mut self, now: Instant, tokens: u64) -> Option<Instant> {
        self.forget(now);
        let over_requests = (self.calls.len() + 1).saturating_sub(self.requests);
        let excess = (self.spent.saturating_add(tokens)).saturating_sub(self.tokens);
        let mut freed = 0;
        let over_tokens = self
            .calls
            .iter()
            .take_while(|call| {
                let more = freed < excess;
                freed = freed.saturating_add(call.tokens);
                more
            })
            .count();
        let leave = over_requests.max(over_tokens).checked_sub(1)?;
        Some(self.calls.get(leave)?.at + WINDOW)
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, now: Instant, tokens: u64) -> PaceId {
        let id = self.forgotten + self.calls.len() as u64;
        if !self.unlimited() {
            self.calls.push_back(Call { at: now, tokens });
            self.spent = self.spent.saturating_add(tokens);
        }
        id
    }

    /// What a call really took.
    pub(crate) fn correct(&mut self, id: PaceId, tokens: u64) {
        let place = id
            .checked_sub(self.forgotten)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(call) = place.and_then(|place| self.calls.get_mut(place)) {
            self.spent = self.spent.saturating_sub(call.tokens).saturating_add(tokens);
            call.tokens = tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    /// Begins calls as soon as they may, for as long as given; when they began, in seconds.
    fn begun(pace: &mut Pace, tokens: u64, seconds: f64) -> Vec<f64> {
        let start = Instant::now();
        let (mut now, mut begun) = (start, Vec::new());
        while now < at(start, seconds) {
            match pace.wait(now, tokens) {
                Some(later) => {
                    assert!(later > now);
                    now = later;
                }
                None => {
                    pace.begin(now, tokens);
                    begun.push(now.duration_since(start).as_secs_f64());
                    now += Duration::from_millis(300);
                }
            }
        }
        begun
    }

    #[test]
    fn no_minute_has_more_calls_than_may_be() {
        let begun = begun(&mut Pace::new(20, 0), 1, 600.0);
        for (place, from) in begun.iter().enumerate() {
            let within = begun[place..].iter().take_while(|at| **at <= from + 60.0).count();
            assert!(within <= 20, "{within} from {from}");
        }
        assert!(begun.len() >= 196, "{}", begun.len());
    }

    #[test]
    fn no_minute_has_more_tokens_than_may_be_and_all_of_them_are_used() {
        let begun = begun(&mut Pace::new(0, 1000), 300, 610.0);
        assert_eq!(begun.len(), 30, "three a minute: {begun:?}");
    }

    #[test]
    fn tokens_that_were_not_needed_are_given_back() {
        let start = Instant::now();
        let mut pace = Pace::new(0, 1000);
        let id = pace.begin(start, 900);
        assert!(pace.wait(start, 200).is_some());
        pace.correct(id, 100);
        assert!(pace.wait(start, 900).is_none());
        assert!(pace.wait(start, 901).is_some());
        pace.correct(id + 5, 0);
    }

    #[test]
    fn a_question_larger_than_a_minute_waits_for_an_empty_one_and_goes() {
        let start = Instant::now();
        let mut pace = Pace::new(0, 1000);
        assert!(pace.wait(start, 5000).is_none());
        pace.begin(start, 5000);
        assert_eq!(pace.wait(start, 10), Some(start + WINDOW));
        assert!(pace.wait(at(start, 61.0), 10).is_none());
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        let mut pace = Pace::new(0, 0);
        for _ in 0..1000 {
            pace.begin(Instant::now(), 1_000_000);
        }
        assert!(pace.calls.is_empty());
        assert!(pace.wait(Instant::now(), u64::MAX).is_none());
    }
}
