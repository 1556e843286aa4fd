//! What can be said of two revisions from some jobs of each.
//!
//! Each function answers for one side only ("is the first worse than the second"), since a canary that does better is no news.

/// Events among trials, after what jobs have in common was taken out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Count {
    pub(super) events: f64,
    pub(super) trials: f64,
}

impl Count {
    /// The events and trials of each job, added up.
    ///
    /// Pages of one document go wrong together, so fifty of them are not fifty witnesses. Both counts are divided by the design
    /// effect: how much more the jobs' shares scatter than those of independent trials would (Rao and Scott, A simple method for
    /// the analysis of clustered binary data, Biometrics 48, 1992).
    pub(super) fn of(jobs: impl Iterator<Item = (u64, u64)> + Clone) -> Self {
        let capped = jobs.map(|(events, trials)| (events.min(trials) as f64, trials as f64));
        let (clusters, events, trials) = capped
            .clone()
            .filter(|(_, trials)| *trials > 0.0)
            .fold((0.0, 0.0, 0.0), |(c, e, t), (events, trials)| {
                (c + 1.0, e + events, t + trials)
            });
        let share = events / f64::max(trials, 1.0);
        let independent = share * (1.0 - share) / f64::max(trials, 1.0);
        if clusters < 2.0 || independent <= 0.0 {
            return Self { events, trials };
        }
        let scatter: f64 = capped
            .map(|(events, trials)| (events - share * trials).powi(2))
            .sum();
        let seen = clusters / (clusters - 1.0) * scatter / trials.powi(2);
        let effect = f64::max(seen / independent, 1.0);
        Self {
            events: events / effect,
            trials: trials / effect,
        }
    }

    pub(super) fn share(self) -> f64 {
        self.events / f64::max(self.trials, 1.0)
    }

    fn rounded(self) -> (f64, f64) {
        let trials = self.trials.round();
        (self.events.round().min(trials), trials)
    }

    /// Wilson's interval for the share (JASA 22, 1927), `z` standard deviations to either side. It says something sensible where
    /// there were no events or few trials; without any trial it is everything.
    fn interval(self, z: f64) -> (f64, f64) {
        if self.trials <= 0.0 {
            return (0.0, 1.0);
        }
        let (share, n) = (self.share(), self.trials);
        let middle = share + z * z / (2.0 * n);
        let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + z * z / n;
        (
            f64::max((middle - half) / whole, 0.0),
            f64::min((middle + half) / whole, 1.0),
        )
    }
}

/// The most by which the first share may be above the second, `z` standard deviations on the safe side (Newcombe, Interval
/// estimation for the difference between independent proportions, Statistics in Medicine 17, 1998, method 10).
pub(super) fn at_most_above(first: Count, second: Count, z: f64) -> f64 {
    let (one, two) = (first.share(), second.share());
    let (upper, lower) = (first.interval(z).1, second.interval(z).0);
    one - two + (upper - one).hypot(two - lower)
}

/// Chance of as many events among the first's trials, or more, if they fell on both alike: Fisher's exact test.
pub(super) fn as_many_by_chance(first: Count, second: Count) -> f64 {
    let ((x, n), (y, m)) = (first.rounded(), second.rounded());
    let events = x + y;
    let choose = |n: f64, k: f64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let of_all = choose(n + m, n);
    let least = f64::max(x, events - m);
    let most = f64::min(events, n);
    tail(least, most, |x| {
        choose(events, x) + choose(n + m - events, n - x) - of_all
    })
}

/// Chance of as many events or more where each trial has this one.
pub(super) fn as_many_by(count: Count, chance: f64) -> f64 {
    let (x, n) = count.rounded();
    if x <= 0.0 || chance >= 1.0 {
        return 1.0;
    }
    if chance <= 0.0 {
        return 0.0;
    }
    tail(x, n, |x| {
        ln_factorial(n) - ln_factorial(x) - ln_factorial(n - x)
            + x * chance.ln()
            + (n - x) * (1.0 - chance).ln()
    })
}

/// Adds up chances that are given as logarithms, from `x` to `most`.
fn tail(mut x: f64, most: f64, ln_chance: impl Fn(f64) -> f64) -> f64 {
    let mut sum = 0.0;
    while x <= most {
        sum += ln_chance(x).exp();
        x += 1.0;
    }
    f64::min(sum, 1.0)
}

/// ln n!, by Stirling's series, to ten digits.
fn ln_factorial(n: f64) -> f64 {
    if n < 16.0 {
        return (2..16).map(f64::from).take_while(|k| *k <= n).map(f64::ln).sum();
    }
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

/// Jobs that are taken for having met the same host.
const BLOCK: usize = 16;

/// Values of both, less the median of those of either that are next to them in time: a host that is busy at noon is so for both, and
/// what it adds would hide what they differ by (Hodges and Lehmann, Rank methods for combination of independent experiments in
/// analysis of variance, Ann. Math. Statist. 33, 1962). In order.
pub(super) fn aligned(first: Vec<(u64, f64)>, second: Vec<(u64, f64)>) -> (Vec<f64>, Vec<f64>) {
    let mut all: Vec<(u64, f64, bool)> = first.into_iter().map(|(at, value)| (at, value, true)).collect();
    all.extend(second.into_iter().map(|(at, value)| (at, value, false)));
    all.sort_by_key(|(at, ..)| *at);
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for block in all.chunks(BLOCK) {
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

/// Standard deviations by which `first` ranks above `second` (Mann and Whitney, Ann. Math. Statist. 18, 1947), with values that
/// are equal sharing their rank; 0 if either is empty or all are equal. Both are in order.
pub(super) fn ranks_above(first: &[f64], second: &[f64]) -> f64 {
    ranked(first, second, 0.0)
}

/// The same with `first` moved down.
fn ranked(first: &[f64], second: &[f64], down: f64) -> f64 {
    let (mut ours, mut theirs) = (
        first.iter().map(|v| v - down).peekable(),
        second.iter().copied().peekable(),
    );
    let (mut sum, mut ties, mut before) = (0.0, 0.0, 0.0);
    while let Some(least) = match (ours.peek(), theirs.peek()) {
        (Some(one), Some(other)) => Some(f64::min(*one, *other)),
        (one, other) => one.or(other).copied(),
    } {
        let run = |values: &mut dyn Iterator<Item = f64>| values.count() as f64;
        let one = run(&mut std::iter::from_fn(|| ours.next_if(|value| *value <= least)));
        let other = run(&mut std::iter::from_fn(|| {
            theirs.next_if(|value| *value <= least)
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

/// By how much `first` lies above `second`: the shift after which neither ranks above the other, which is the median of all
/// differences between them (Hodges and Lehmann, Ann. Math. Statist. 34, 1963). `None` if either is empty. Both are in order.
pub(super) fn shift(first: &[f64], second: &[f64]) -> Option<f64> {
    let (mut low, mut high) = (first.first()? - second.last()?, first.last()? - second.first()?);
    // To a millionth of the widest range that logarithms of milliseconds have.
    for _ in 0..26 {
        let middle = f64::midpoint(low, high);
        if ranked(first, second, middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(f64::midpoint(low, high))
}

/// Chance of being so many standard deviations above the mean, or more (Abramowitz and Stegun, 26.2.17; wrong by 7.5e-8 at most).
pub(super) fn above_by_chance(z: f64) -> f64 {
    const SERIES: [f64; 5] = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    if z < 0.0 {
        return 1.0 - above_by_chance(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = SERIES.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64, by: f64) {
        assert!((one - other).abs() < by, "{one} is not {other}");
    }

    fn count(events: f64, trials: f64) -> Count {
        Count { events, trials }
    }

    /// Figures of textbooks and of other programs.
    #[test]
    fn figures_are_those_of_others() {
        // Fisher's tea: four cups of eight, all four known: 1/70; three of four: 17/70.
        near(
            as_many_by_chance(count(4.0, 4.0), count(0.0, 4.0)),
            1.0 / 70.0,
            1e-9,
        );
        near(
            as_many_by_chance(count(3.0, 4.0), count(1.0, 4.0)),
            17.0 / 70.0,
            1e-9,
        );
        near(as_many_by_chance(count(0.0, 9.0), count(3.0, 40.0)), 1.0, 1e-9);
        near(
            as_many_by_chance(count(5.0, 5.0), count(0.0, 500.0)),
            3.6e-12,
            1e-12,
        );
        // One of twenty or more at a twentieth each: 1 - 0.95^20.
        near(as_many_by(count(1.0, 20.0), 0.05), 1.0 - 0.95_f64.powi(20), 1e-9);
        near(as_many_by(count(300.0, 300.0), 0.5), 0.0, 1e-9);
        // Newcombe 1998, table II, rows (a) and (d).
        near(
            at_most_above(count(56.0, 70.0), count(48.0, 80.0), 1.959_964),
            0.3339,
            1e-4,
        );
        near(
            at_most_above(count(5.0, 56.0), count(0.0, 29.0), 1.959_964),
            0.1926,
            1e-4,
        );
        near(ln_factorial(20.0), 2_432_902_008_176_640_000_f64.ln(), 1e-9);
        near(above_by_chance(1.644_854), 0.05, 1e-6);
        near(above_by_chance(-1.644_854), 0.95, 1e-6);
        near(above_by_chance(3.090_232), 0.001, 1e-6);
        // U = 23 of 25 with five each: (23 - 12.5) / sqrt(25 · 11 / 12).
        let (a, b) = ([3.0, 5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 2.5, 4.0, 4.5]);
        near(ranks_above(&a, &b), 10.5 / (275.0_f64 / 12.0).sqrt(), 1e-9);
        near(ranks_above(&b, &a), -10.5 / (275.0_f64 / 12.0).sqrt(), 1e-9);
    }

    #[test]
    fn what_is_equal_or_missing_says_nothing() {
        assert_eq!(ranks_above(&[1.0; 4], &[1.0; 9]), 0.0);
        assert_eq!(ranks_above(&[], &[1.0]), 0.0);
        assert_eq!(shift(&[], &[1.0]), None);
        assert_eq!(as_many_by_chance(count(0.0, 0.0), count(0.0, 0.0)), 1.0);
        near(at_most_above(count(0.0, 0.0), count(0.0, 10.0), 1.6), 1.0, 1e-9);
    }

    #[test]
    fn the_shift_is_the_median_of_all_differences() {
        let (a, b) = ([1.5, 2.5, 9.0], [1.0, 1.2, 2.0]);
        let mut all: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| a - b)).collect();
        all.sort_by(f64::total_cmp);
        near(shift(&a, &b).unwrap(), all[4], 1e-6);
        near(shift(&[0.7], &[0.2]).unwrap(), 0.5, 1e-6);
    }

    #[test]
    fn what_goes_wrong_together_counts_as_little_as_it_says() {
        // Ten jobs of twenty pages, one page of each: nothing in common.
        let apart = Count::of(std::iter::repeat_n((1, 20), 10));
        assert_eq!(apart, count(10.0, 200.0));
        // All pages of one of ten jobs: as good as one of ten.
        let together = Count::of((0..10).map(|n| (if n == 0 { 20 } else { 0 }, 20)));
        near(together.share(), 0.1, 1e-9);
        near(together.trials, 9.0, 1e-9);
        // More events than pages are each page once.
        assert_eq!(Count::of([(30, 20), (20, 20)].into_iter()), count(40.0, 40.0));
    }
}
