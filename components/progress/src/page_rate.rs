//! Measures the page rate and estimates the time left.
//!
//! The rate is that of the last pages, so that it follows the document from text to scans and back. There are enough of them that one
//! slow page changes the estimate only a little. Until the last pages span enough time, the rate is computed from the start of the
//! document, including the loading of models. An estimate that starts too long and shrinks is better than one that starts too short
//! and grows.

use std::collections::VecDeque;

/// Number of last pages from which the rate is computed.
const WINDOW_PAGES: usize = 32;
/// Time that the last pages must span for their rate to be used, in milliseconds. The pages of a batch end in one burst.
const MIN_SPAN_MILLIS: u64 = 500;
/// Number of finished pages before a time left is estimated.
const MIN_PAGES: usize = 3;

/// The times at which the last pages were done.
#[derive(Debug)]
pub(crate) struct PageRate {
    started_millis: u64,
    done_millis: VecDeque<u64>,
}

impl PageRate {
    pub(crate) fn new(started_millis: u64) -> Self {
        Self {
            started_millis,
            done_millis: VecDeque::new(),
        }
    }

    /// Records a finished page.
    pub(crate) fn record_page(&mut self, at_millis: u64) {
        if self.done_millis.len() > WINDOW_PAGES {
            self.done_millis.pop_front();
        }
        self.done_millis.push_back(at_millis);
    }

    /// Returns the pages per second until now, or `None` before the first page.
    pub(crate) fn pages_per_second(&self, now_millis: u64) -> Option<f64> {
        let first = *self.done_millis.front()?;
        let recent = now_millis.saturating_sub(first);
        let (pages, millis) = if recent >= MIN_SPAN_MILLIS && self.done_millis.len() > MIN_PAGES {
            (self.done_millis.len() - 1, recent)
        } else {
            (
                self.done_millis.len(),
                now_millis.saturating_sub(self.started_millis),
            )
        };
        Some(pages as f64 * 1000.0 / millis.max(1) as f64)
    }

    /// Estimates the seconds until `pages` further pages are done. Returns `None` after too few pages.
    pub(crate) fn seconds_for(&self, pages: u32, now_millis: u64) -> Option<u32> {
        if self.done_millis.len() < MIN_PAGES {
            return None;
        }
        let rate = self.pages_per_second(now_millis)?;
        Some((f64::from(pages) / rate).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate_of(times: impl IntoIterator<Item = u64>) -> PageRate {
        let mut rate = PageRate::new(0);
        times.into_iter().for_each(|at| rate.record_page(at));
        rate
    }

    #[test]
    fn rate_is_that_of_the_last_pages() {
        // ten seconds of loading, then ten pages a second
        let steady = rate_of((0..50).map(|n| 10_000 + n * 100));
        assert_eq!(steady.pages_per_second(14_900), Some(10.0));
        assert_eq!(steady.seconds_for(100, 14_900), Some(10));
        // then it slows down to one page a second
        let slower = rate_of((0..50).map(|n| n * 100).chain((0..40).map(|n| 5_900 + n * 1000)));
        assert_eq!(slower.pages_per_second(44_900), Some(1.0));
    }

    #[test]
    fn pause_lowers_the_rate() {
        let stalled = rate_of((1..=10).map(|n| n * 100));
        assert!(stalled.pages_per_second(5_000) < stalled.pages_per_second(1_000));
    }

    #[test]
    fn rate_of_a_burst_counts_from_the_start() {
        let burst = rate_of([4_000, 4_000, 4_001, 4_001]);
        assert_eq!(burst.pages_per_second(4_001).map(f64::round), Some(1.0));
    }

    #[test]
    fn no_time_left_is_estimated_after_too_few_pages() {
        assert_eq!(rate_of([]).pages_per_second(500), None);
        assert_eq!(rate_of([3_000, 3_100]).seconds_for(100, 3_100), None);
        assert!(rate_of([3_000, 3_100, 3_200]).seconds_for(100, 3_200).is_some());
    }
}
