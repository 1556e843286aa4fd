//! Statistical tests that compare jobs of two revisions.
//!
//! Each test is one-sided ("is the first worse than the second"), because it does not matter whether a canary is
//! better.

use statrs::distribution::{Binomial, ContinuousCDF as _, DiscreteCDF, Hypergeometric, Normal};

/// Number of events among a number of trials, corrected for the correlation within jobs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct EventAndTrialCounts {
    pub(super) events: f64,
    pub(super) trials: f64,
}

impl EventAndTrialCounts {
    /// Sums the events and trials of the jobs.
    ///
    /// Pages of one document fail together, so fifty of them are not fifty independent observations. Both counts are
    /// divided by the design effect. It is the ratio between the variance of the jobs' rates and the variance of
    /// independent trials (Rao and Scott, A simple method for the analysis of clustered binary data, Biometrics 48,
    /// 1992).
    pub(super) fn from_jobs_with_design_effect(jobs: impl Iterator<Item = (u64, u64)> + Clone) -> Self {
        let capped = jobs.map(|(events, trials)| (events.min(trials) as f64, trials as f64));
        let (clusters, events, trials) = capped
            .clone()
            .filter(|(_, trials)| *trials > 0.0)
            .fold((0.0, 0.0, 0.0), |(c, e, t), (events, trials)| {
                (c + 1.0, e + events, t + trials)
            });
        let share = events / f64::max(trials, 1.0);
        let independent_variance = share * (1.0 - share) / f64::max(trials, 1.0);
        if clusters < 2.0 || independent_variance <= 0.0 {
            return Self { events, trials };
        }
        let scatter: f64 = capped
            .map(|(events, trials)| (events - share * trials).powi(2))
            .sum();
        let observed_variance = clusters / (clusters - 1.0) * scatter / trials.powi(2);
        let effect = f64::max(observed_variance / independent_variance, 1.0);
        Self {
            events: events / effect,
            trials: trials / effect,
        }
    }

    pub(super) fn event_rate(self) -> f64 {
        self.events / f64::max(self.trials, 1.0)
    }

    /// Returns the numbers of events and trials, rounded.
    fn round_counts(self) -> (u64, u64) {
        let trials = self.trials.round() as u64;
        ((self.events.round() as u64).min(trials), trials)
    }

    /// Returns Wilson's interval for the rate (JASA 22, 1927), `z` standard deviations to either side. It is usable
    /// without events or with few trials. Without any trial it is the interval from 0 to 1.
    fn wilson_interval(self, z: f64) -> (f64, f64) {
        if self.trials <= 0.0 {
            return (0.0, 1.0);
        }
        let (share, n) = (self.event_rate(), self.trials);
        let middle = share + z * z / (2.0 * n);
        let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + z * z / n;
        (
            f64::max((middle - half) / whole, 0.0),
            f64::min((middle + half) / whole, 1.0),
        )
    }
}

/// Returns the upper bound, at `z` standard deviations, of the first rate minus the second (Newcombe, Interval
/// estimation for the difference between independent proportions, Statistics in Medicine 17, 1998, method 10).
pub(super) fn rate_difference_upper_bound(
    first: EventAndTrialCounts,
    second: EventAndTrialCounts,
    z: f64,
) -> f64 {
    let (one, two) = (first.event_rate(), second.event_rate());
    let (upper, lower) = (first.wilson_interval(z).1, second.wilson_interval(z).0);
    one - two + (upper - one).hypot(two - lower)
}

/// Returns the probability of at least as many events among the first's trials if both have the same rate: Fisher's
/// exact test.
pub(super) fn fisher_exact_p_value(first: EventAndTrialCounts, second: EventAndTrialCounts) -> f64 {
    let ((x, n), (y, m)) = (first.round_counts(), second.round_counts());
    match Hypergeometric::new(n + m, x + y, n) {
        Ok(distribution) => upper_tail_probability(&distribution, x),
        // Impossible: there are not more events than trials.
        Err(_) => 1.0,
    }
}

/// Returns the probability of at least as many events if each trial has this probability.
pub(super) fn binomial_upper_tail_p_value(count: EventAndTrialCounts, chance: f64) -> f64 {
    let (x, n) = count.round_counts();
    match Binomial::new(chance.clamp(0.0, 1.0), n) {
        Ok(distribution) => upper_tail_probability(&distribution, x),
        // The chance is not a number.
        Err(_) => 1.0,
    }
}

/// Returns the probability of `x` or more.
fn upper_tail_probability(distribution: &impl DiscreteCDF<u64, f64>, x: u64) -> f64 {
    // `sf` is the probability of more than its argument.
    x.checked_sub(1)
        .map_or(1.0, |below| f64::min(distribution.sf(below), 1.0))
}

/// Number of consecutive jobs that are assumed to have the same host load.
const ALIGNMENT_BLOCK_JOBS: usize = 16;

/// Subtracts from each value the median of the values that are near in time, of both groups. The load of the host
/// affects both groups alike and would hide their difference (Hodges and Lehmann, Rank methods for combination of
/// independent experiments in analysis of variance, Ann. Math. Statist. 33, 1962). The results are sorted.
pub(super) fn subtract_block_medians(
    first: Vec<(u64, f64)>,
    second: Vec<(u64, f64)>,
) -> (Vec<f64>, Vec<f64>) {
    let mut all: Vec<(u64, f64, bool)> = first.into_iter().map(|(at, value)| (at, value, true)).collect();
    all.extend(second.into_iter().map(|(at, value)| (at, value, false)));
    all.sort_by_key(|(at, ..)| *at);
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for block in all.chunks(ALIGNMENT_BLOCK_JOBS) {
        let mut values: Vec<f64> = block.iter().map(|(_, value, _)| *value).collect();
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or_default();
        for (_, value, first) in block {
            let arm = if *first { &mut ones } else { &mut others };
            arm.push(value - median);
        }
    }
    ones.sort_by(f64::total_cmp);
    others.sort_by(f64::total_cmp);
    (ones, others)
}

/// Returns by how many standard deviations `first` ranks above `second` (Mann and Whitney, Ann. Math. Statist. 18,
/// 1947). Equal values share their rank. Returns 0 if one group is empty or all values are equal. Both must be
/// sorted.
pub(super) fn mann_whitney_z(first: &[f64], second: &[f64]) -> f64 {
    mann_whitney_z_shifted(first, second, 0.0)
}

/// Like [`mann_whitney_z`], with `shift` subtracted from each value of `first`.
fn mann_whitney_z_shifted(first: &[f64], second: &[f64], shift: f64) -> f64 {
    let (mut first_values, mut second_values) = (
        first.iter().map(|v| v - shift).peekable(),
        second.iter().copied().peekable(),
    );
    let (mut sum, mut ties, mut before) = (0.0, 0.0, 0.0);
    while let Some(least) = match (first_values.peek(), second_values.peek()) {
        (Some(one), Some(other)) => Some(f64::min(*one, *other)),
        (one, other) => one.or(other).copied(),
    } {
        let run = |values: &mut dyn Iterator<Item = f64>| values.count() as f64;
        let one = run(&mut std::iter::from_fn(|| {
            first_values.next_if(|value| *value <= least)
        }));
        let other = run(&mut std::iter::from_fn(|| {
            second_values.next_if(|value| *value <= least)
        }));
        let many = one + other;
        sum += one * (before + (many + 1.0) / 2.0);
        ties += many.powi(3) - many;
        before += many;
    }
    let (n, m) = (first.len() as f64, second.len() as f64);
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance.is_nan() || variance <= 0.0 {
        return 0.0;
    }
    (sum - n * (n + 1.0) / 2.0 - n * m / 2.0) / variance.sqrt()
}

/// Returns how far `first` lies above `second`: the shift after which neither ranks above the other, which is the
/// median of all differences between them (Hodges and Lehmann, Ann. Math. Statist. 34, 1963). Returns `None` if one
/// group is empty. Both must be sorted.
pub(super) fn hodges_lehmann_shift(first: &[f64], second: &[f64]) -> Option<f64> {
    let (mut low, mut high) = (first.first()? - second.last()?, first.last()? - second.first()?);
    // 26 halvings reach a millionth of the widest range of logarithms of milliseconds.
    for _ in 0..26 {
        let middle = f64::midpoint(low, high);
        if mann_whitney_z_shifted(first, second, middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(f64::midpoint(low, high))
}

/// Returns the probability that a normal value is at least `z` standard deviations above the mean.
pub(super) fn normal_upper_tail(z: f64) -> f64 {
    Normal::standard().sf(z)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(one: f64, other: f64, by: f64) {
        assert!((one - other).abs() < by, "{one} is not {other}");
    }

    fn make_count(events: f64, trials: f64) -> EventAndTrialCounts {
        EventAndTrialCounts { events, trials }
    }

    /// The expected values are from textbooks and other programs.
    #[test]
    fn statistics_match_published_values() {
        // Fisher's tea tasting: four of eight cups, all four correct: 1/70; three of four: 17/70.
        assert_near(
            fisher_exact_p_value(make_count(4.0, 4.0), make_count(0.0, 4.0)),
            1.0 / 70.0,
            1e-9,
        );
        assert_near(
            fisher_exact_p_value(make_count(3.0, 4.0), make_count(1.0, 4.0)),
            17.0 / 70.0,
            1e-9,
        );
        assert_near(
            fisher_exact_p_value(make_count(0.0, 9.0), make_count(3.0, 40.0)),
            1.0,
            1e-9,
        );
        assert_near(
            fisher_exact_p_value(make_count(5.0, 5.0), make_count(0.0, 500.0)),
            3.6e-12,
            1e-12,
        );
        // At least one event in twenty trials with probability 1/20: 1 - 0.95^20.
        assert_near(
            binomial_upper_tail_p_value(make_count(1.0, 20.0), 0.05),
            1.0 - 0.95_f64.powi(20),
            1e-9,
        );
        assert_near(
            binomial_upper_tail_p_value(make_count(300.0, 300.0), 0.5),
            0.0,
            1e-9,
        );
        // Newcombe 1998, table II, rows (a) and (d).
        assert_near(
            rate_difference_upper_bound(make_count(56.0, 70.0), make_count(48.0, 80.0), 1.959_964),
            0.3339,
            1e-4,
        );
        assert_near(
            rate_difference_upper_bound(make_count(5.0, 56.0), make_count(0.0, 29.0), 1.959_964),
            0.1926,
            1e-4,
        );
        assert_eq!(binomial_upper_tail_p_value(make_count(1.0, 9.0), 0.0), 0.0);
        assert_eq!(binomial_upper_tail_p_value(make_count(0.0, 9.0), 0.0), 1.0);
        assert_eq!(binomial_upper_tail_p_value(make_count(1.0, 9.0), 1.0), 1.0);
        assert_near(normal_upper_tail(1.644_854), 0.05, 1e-6);
        assert_near(normal_upper_tail(-1.644_854), 0.95, 1e-6);
        assert_near(normal_upper_tail(3.090_232), 0.001, 1e-6);
        // U = 23 of 25 with five each: (23 - 12.5) / sqrt(25 · 11 / 12).
        let (a, b) = ([3.0, 5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 2.5, 4.0, 4.5]);
        assert_near(mann_whitney_z(&a, &b), 10.5 / (275.0_f64 / 12.0).sqrt(), 1e-9);
        assert_near(mann_whitney_z(&b, &a), -10.5 / (275.0_f64 / 12.0).sqrt(), 1e-9);
    }

    #[test]
    fn equal_or_missing_values_show_no_difference() {
        assert_eq!(mann_whitney_z(&[1.0; 4], &[1.0; 9]), 0.0);
        assert_eq!(mann_whitney_z(&[], &[1.0]), 0.0);
        assert_eq!(hodges_lehmann_shift(&[], &[1.0]), None);
        assert_eq!(
            fisher_exact_p_value(make_count(0.0, 0.0), make_count(0.0, 0.0)),
            1.0
        );
        assert_near(
            rate_difference_upper_bound(make_count(0.0, 0.0), make_count(0.0, 10.0), 1.6),
            1.0,
            1e-9,
        );
    }

    #[test]
    fn shift_is_the_median_of_all_differences() {
        let (a, b) = ([1.5, 2.5, 9.0], [1.0, 1.2, 2.0]);
        let mut all: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| a - b)).collect();
        all.sort_by(f64::total_cmp);
        assert_near(hodges_lehmann_shift(&a, &b).unwrap(), all[4], 1e-6);
        assert_near(hodges_lehmann_shift(&[0.7], &[0.2]).unwrap(), 0.5, 1e-6);
    }

    #[test]
    fn clustered_events_are_scaled_by_the_design_effect() {
        // Ten jobs of twenty pages with one event each: no correlation.
        let apart = EventAndTrialCounts::from_jobs_with_design_effect(std::iter::repeat_n((1, 20), 10));
        assert_eq!(apart, make_count(10.0, 200.0));
        // All twenty pages of one of ten jobs: equivalent to one event in ten.
        let together = EventAndTrialCounts::from_jobs_with_design_effect(
            (0..10).map(|n| (if n == 0 { 20 } else { 0 }, 20)),
        );
        assert_near(together.event_rate(), 0.1, 1e-9);
        assert_near(together.trials, 9.0, 1e-9);
        // Events above the number of pages count once for each page.
        assert_eq!(
            EventAndTrialCounts::from_jobs_with_design_effect([(30, 20), (20, 20)].into_iter()),
            make_count(40.0, 40.0)
        );
    }
}
