//! How fast pages are done, and how long the rest will take.
//!
//! The pace is that of the last pages, so that it follows the document from text into scans and back, and there are enough
//! of them that one slow page does not throw the time left about. Until they span long enough to be told apart, the whole
//! time since the start counts, model loading included: an estimate that begins too long and shrinks is better to wait
//! beside than one that begins too short and grows.

use std::collections::VecDeque;

/// Pages the pace is taken from.
const PAGES: usize = 32;
/// What the last pages must span for the pace to be theirs alone; a batch ends in one burst.
const SPAN_MILLIS: u64 = 500;
/// Pages that must be done before a time left is told.
const ENOUGH_PAGES: usize = 3;

/// The times at which the last pages were done.
#[derive(Debug)]
pub(crate) struct Pace {
    started_millis: u64,
    done_millis: VecDeque<u64>,
}

impl Pace {
    pub(crate) fn new(started_millis: u64) -> Self {
        Self {
            started_millis,
            done_millis: VecDeque::new(),
        }
    }

    /// A page is done.
    pub(crate) fn page(&mut self, at_millis: u64) {
        if self.done_millis.len() > PAGES {
            self.done_millis.pop_front();
        }
        self.done_millis.push_back(at_millis);
    }

    /// Pages a second up to now, if any is done.
    pub(crate) fn pages_per_second(&self, now_millis: u64) -> Option<f64> {
        let first = *self.done_millis.front()?;
        let recent = now_millis.saturating_sub(first);
        let (pages, millis) = if recent >= SPAN_MILLIS && self.done_millis.len() > ENOUGH_PAGES {
            (self.done_millis.len() - 1, recent)
        } else {
            (
                self.done_millis.len(),
                now_millis.saturating_sub(self.started_millis),
            )
        };
        Some(pages as f64 * 1000.0 / millis.max(1) as f64)
    }

    /// Seconds until so many further pages are done, if enough is known to tell.
    pub(crate) fn seconds_for(&self, pages: u32, now_millis: u64) -> Option<u32> {
        if self.done_millis.len() < ENOUGH_PAGES {
            return None;
        }
        let rate = self.pages_per_second(now_millis)?;
        Some((f64::from(pages) / rate).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(times: impl IntoIterator<Item = u64>) -> Pace {
        let mut pace = Pace::new(0);
        times.into_iter().for_each(|at| pace.page(at));
        pace
    }

    #[test]
    fn the_pace_is_that_of_the_last_pages() {
        // ten seconds of loading, then ten pages a second
        let steady = pace((0..50).map(|n| 10_000 + n * 100));
        assert_eq!(steady.pages_per_second(14_900), Some(10.0));
        assert_eq!(steady.seconds_for(100, 14_900), Some(10));
        // then it slows down to one page a second
        let slower = pace((0..50).map(|n| n * 100).chain((0..40).map(|n| 5_900 + n * 1000)));
        assert_eq!(slower.pages_per_second(44_900), Some(1.0));
    }

    #[test]
    fn waiting_lowers_the_pace() {
        let stalled = pace((1..=10).map(|n| n * 100));
        assert!(stalled.pages_per_second(5_000) < stalled.pages_per_second(1_000));
    }

    #[test]
    fn a_burst_is_no_pace() {
        let burst = pace([4_000, 4_000, 4_001, 4_001]);
        assert_eq!(burst.pages_per_second(4_001).map(f64::round), Some(1.0));
    }

    #[test]
    fn nothing_is_told_before_enough_is_known() {
        assert_eq!(pace([]).pages_per_second(500), None);
        assert_eq!(pace([3_000, 3_100]).seconds_for(100, 3_100), None);
        assert!(pace([3_000, 3_100, 3_200]).seconds_for(100, 3_200).is_some());
    }
}
