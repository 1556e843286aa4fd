//! An adaptive limit on the concurrent calls to a provider: the smallest number that reaches its full throughput.
//!
//! Above a certain concurrency (the knee), the throughput of a model no longer increases, and each request takes longer. Far
//! above it, calls time out. Providers do not state where the knee is, so the limiter finds it by hill climbing. With `n` calls
//! always in flight that take `t` each, the throughput is `n / t` (Little's law). The limiter compares the throughput of
//! neighboring values of `n`, as .NET's thread pool does for threads (Hellerstein, Morrison, Eilebrecht: "Optimizing
//! Concurrency Levels in the .NET ThreadPool", 2009). Limiters that compare a latency with the lowest latency seen (TCP Vegas,
//! Netflix's gradient) need a meaningful minimum latency, which responses of ten and of a thousand tokens do not share.
//!
//! The limit starts at the configured maximum and never exceeds it. An experiment that lowers the limit by a fraction x is
//! accepted if throughput falls by at most x/2; one that raises it by x, if throughput rises by at least x/2. After a rejected
//! experiment, the interval to the next one doubles, so that a provider without a knee loses almost nothing. After an overload
//! (the provider reports it, or calls time out), the limit drops by a quarter at once.
//!
//! The workload changes, too: whole chapters take longer than parts of chapters. If the parts arrive during an experiment with a
//! lower limit, the experiment seems to cost nothing. Before an experiment is accepted, the throughput at the old limit is
//! therefore measured again. If it has changed by itself, the experiment is discarded.

use tokio::time::Duration;

/// Calls between two experiments, initially.
const INITIAL_EXPERIMENT_INTERVAL: u32 = 100;
/// Maximum number of calls between two experiments.
const MAX_EXPERIMENT_INTERVAL: u32 = 3200;
/// Minimum and maximum number of calls in one throughput measurement.
const MIN_SAMPLES: u32 = 8;
const MAX_SAMPLES: u32 = 100;
/// The number of calls is chosen so that half of the largest possible effect of an experiment is this many standard errors of
/// the mean.
const REQUIRED_STANDARD_ERRORS: f64 = 4.0;
/// If the throughput falls below this fraction of the last measurement, a new experiment starts at once.
const RATE_DROP_FACTOR: f64 = 2.0 / 3.0;

/// Maximum relative change of the throughput during an experiment. After a larger change, the experiment is discarded.
const MAX_RATE_DRIFT: f64 = 0.2;

/// A measurement of the throughput at another limit.
struct LimitExperiment {
    from_limit: u32,
    /// Calls per second before the experiment.
    rate_before: f64,
    /// The tried limit and its calls per second, once the experiment looks acceptable. The old limit is then measured again.
    candidate: Option<(u32, f64)>,
}

/// Identifies the limit under which a call started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitEpoch(u64);

/// The concurrency limiter of one provider.
pub(crate) struct ConcurrencyLimiter {
    max_limit: u32,
    adaptive: bool,
    current_limit: u32,
    epoch: u64,
    /// Calls still to be skipped after a change of the limit, because they overlapped with calls of the previous epoch.
    calls_to_skip: u32,
    sample_count: u32,
    total_seconds: f64,
    total_squared_seconds: f64,
    experiment: Option<LimitExperiment>,
    next_experiment_is_upward: bool,
    calls_until_experiment: u32,
    experiment_interval: u32,
    /// Calls per second at the last evaluation.
    baseline_rate: Option<f64>,
    /// The limit to restore after an outage: the largest at which at least as many calls as the limit have succeeded, or the
    /// result of the last accepted experiment. An overload without an outage reduces it.
    proven_limit: u32,
}

impl ConcurrencyLimiter {
    /// Starts with the configured maximum, at least 1.
    pub(crate) fn new(configured: u32, adaptive: bool) -> Self {
        let configured = configured.max(1);
        Self {
            max_limit: configured,
            adaptive,
            current_limit: configured,
            epoch: 0,
            calls_to_skip: configured,
            sample_count: 0,
            total_seconds: 0.0,
            total_squared_seconds: 0.0,
            experiment: None,
            next_experiment_is_upward: false,
            calls_until_experiment: INITIAL_EXPERIMENT_INTERVAL,
            experiment_interval: INITIAL_EXPERIMENT_INTERVAL,
            baseline_rate: None,
            proven_limit: 0,
        }
    }

    /// The current limit.
    pub(crate) const fn current_limit(&self) -> u32 {
        self.current_limit
    }

    /// The epoch of a call that starts now.
    pub(crate) const fn current_epoch(&self) -> LimitEpoch {
        LimitEpoch(self.epoch)
    }

    /// Records a successful call. `in_flight` is the number of calls that were in flight when it started, including itself.
    pub(crate) fn record_success(&mut self, epoch: LimitEpoch, in_flight: u32, took: Duration) {
        // A call that started below the limit is no evidence about the limit.
        if !self.adaptive || epoch.0 != self.epoch || in_flight < self.current_limit {
            return;
        }
        self.calls_until_experiment = self.calls_until_experiment.saturating_sub(1);
        if self.calls_to_skip > 0 {
            self.calls_to_skip -= 1;
            return;
        }
        self.sample_count += 1;
        self.total_seconds += took.as_secs_f64();
        self.total_squared_seconds += took.as_secs_f64().powi(2);
        if self.sample_count >= self.current_limit {
            self.proven_limit = self.proven_limit.max(self.current_limit);
        }
        if self.sample_count < self.required_samples() {
            return;
        }
        let rate = f64::from(self.current_limit) * f64::from(self.sample_count)
            / self.total_seconds.max(f64::MIN_POSITIVE);
        self.reset_samples();
        match self.experiment.take() {
            Some(experiment) => self.evaluate_experiment(experiment, rate),
            None => self.start_experiment_if_due(rate),
        }
    }

    /// Returns the number of calls that are needed to tell the effect of an experiment from noise.
    fn required_samples(&self) -> u32 {
        // The baseline is always measured with the maximum number of calls.
        let Some(experiment) = &self.experiment else {
            return MAX_SAMPLES;
        };
        let count = f64::from(self.sample_count);
        let mean = (self.total_seconds / count).max(f64::MIN_POSITIVE);
        let spread = (self.total_squared_seconds / count - mean * mean).max(0.0).sqrt() / mean;
        // The test: does throughput change by at least half of the change of the limit?
        let from = experiment.from_limit;
        let half = f64::from(experiment_step_size(from)) / f64::from(from) / 2.0;
        let enough = (REQUIRED_STANDARD_ERRORS * spread / half).powi(2).ceil() as u32;
        enough.max(2 * self.current_limit).clamp(MIN_SAMPLES, MAX_SAMPLES)
    }

    fn reset_samples(&mut self) {
        (self.sample_count, self.total_seconds, self.total_squared_seconds) = (0, 0.0, 0.0);
    }

    fn evaluate_experiment(&mut self, experiment: LimitExperiment, rate: f64) {
        let is_acceptable = |limit: u32, rate_at_limit: f64, rate_before: f64| {
            let limit_ratio = f64::from(limit) / f64::from(experiment.from_limit);
            rate_at_limit >= rate_before * f64::midpoint(1.0, limit_ratio)
        };
        let (candidate_limit, rate_at_candidate) = match experiment.candidate {
            None if is_acceptable(self.current_limit, rate, experiment.rate_before) => {
                let candidate = Some((self.current_limit, rate));
                self.set_limit(experiment.from_limit);
                self.experiment = Some(LimitExperiment {
                    candidate,
                    ..experiment
                });
                return;
            }
            None => return self.reject_experiment(experiment.from_limit, experiment.rate_before),
            Some(candidate) => candidate,
        };
        let mean_rate_before = f64::midpoint(experiment.rate_before, rate);
        if (rate / experiment.rate_before - 1.0).abs() > MAX_RATE_DRIFT {
            // The experiment is discarded; a later one may meet a steadier workload.
            self.baseline_rate = Some(rate);
            self.calls_until_experiment = INITIAL_EXPERIMENT_INTERVAL;
        } else if is_acceptable(candidate_limit, rate_at_candidate, mean_rate_before) {
            self.set_limit(candidate_limit);
            self.baseline_rate = Some(rate_at_candidate);
            self.proven_limit = candidate_limit;
            self.experiment_interval = INITIAL_EXPERIMENT_INTERVAL;
            self.calls_until_experiment = 0;
            self.start_experiment_in_current_direction(rate_at_candidate);
        } else {
            self.reject_experiment(experiment.from_limit, rate);
        }
    }

    /// Rejects an experiment and returns to the old limit.
    fn reject_experiment(&mut self, from: u32, before: f64) {
        self.baseline_rate = Some(before);
        self.next_experiment_is_upward = !self.next_experiment_is_upward;
        if self.current_limit != from {
            self.set_limit(from);
        }
        self.double_experiment_interval();
    }

    fn start_experiment_if_due(&mut self, rate: f64) {
        if self
            .baseline_rate
            .is_some_and(|known| rate < known * RATE_DROP_FACTOR)
        {
            self.experiment_interval = INITIAL_EXPERIMENT_INTERVAL;
            self.calls_until_experiment = 0;
        }
        if self.calls_until_experiment == 0 {
            self.baseline_rate = Some(rate);
            self.start_experiment_in_current_direction(rate);
        }
    }

    /// Starts the next experiment in the current direction, if there is one.
    fn start_experiment_in_current_direction(&mut self, rate: f64) {
        if self.max_limit == 1 {
            return;
        }
        if self.current_limit >= self.max_limit {
            self.next_experiment_is_upward = false;
        } else if self.current_limit <= 1 {
            self.next_experiment_is_upward = true;
        }
        let from = self.current_limit;
        let by = experiment_step_size(from);
        let to = if self.next_experiment_is_upward {
            (from + by).min(self.max_limit)
        } else {
            from - by
        };
        self.set_limit(to);
        self.experiment = Some(LimitExperiment {
            from_limit: from,
            rate_before: rate,
            candidate: None,
        });
    }

    /// Reduces the limit after an overload. `later_calls_succeeded` is true if calls that started after the failed one
    /// have succeeded. Then the cause is overload and not an outage, and the proven limit is reduced, too.
    pub(crate) fn reduce_on_overload(&mut self, epoch: LimitEpoch, later_calls_succeeded: bool) {
        // Calls that were in flight together count once.
        if !self.adaptive || epoch.0 != self.epoch {
            return;
        }
        match self.experiment.take() {
            Some(experiment) if experiment.from_limit < self.current_limit => {
                self.set_limit(experiment.from_limit);
            }
            _ => self.set_limit(self.current_limit - experiment_step_size(self.current_limit)),
        }
        if later_calls_succeeded {
            self.proven_limit = self.proven_limit.min(self.current_limit);
        }
        self.next_experiment_is_upward = true;
        self.baseline_rate = None;
        self.double_experiment_interval();
    }

    /// Restores the proven limit after an outage. Without a proven limit, the reduced limit stays, and an experiment with a
    /// higher one starts soon.
    pub(crate) fn restore_proven_limit(&mut self) {
        self.experiment = None;
        self.baseline_rate = None;
        self.next_experiment_is_upward = true;
        self.experiment_interval = INITIAL_EXPERIMENT_INTERVAL;
        self.calls_until_experiment = INITIAL_EXPERIMENT_INTERVAL / 4;
        self.set_limit(self.current_limit.max(self.proven_limit));
    }

    fn double_experiment_interval(&mut self) {
        self.experiment_interval = (self.experiment_interval * 2).min(MAX_EXPERIMENT_INTERVAL);
        self.calls_until_experiment = self.experiment_interval;
    }

    fn set_limit(&mut self, to: u32) {
        self.current_limit = to.clamp(1, self.max_limit);
        self.epoch += 1;
        self.calls_to_skip = self.current_limit;
        self.reset_samples();
    }
}

/// Returns the step from a limit to the next one.
fn experiment_step_size(limit: u32) -> u32 {
    (limit / 4).max(1)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    /// A model whose throughput does not grow above `knee` calls, and whose calls time out above `timeout_limit`
    /// calls.
    struct SimulatedModel {
        knee: u32,
        timeout_limit: u32,
    }

    /// Keeps the model busy with a mix of short and long responses. Returns the limit after each response, and the ratio of the
    /// total time to the minimum time.
    fn simulate_mixed_load(
        limit: &mut ConcurrencyLimiter,
        model: &SimulatedModel,
        response_count: usize,
        seed: u64,
    ) -> (Vec<u32>, f64) {
        let mut random = fastrand::Rng::with_seed(seed);
        simulate_load(limit, model, response_count, |_| {
            if random.bool() { 17_500.0 } else { 22_500.0 }
        })
    }

    /// Keeps the model busy with responses that take `millis` each.
    fn simulate_load(
        limit: &mut ConcurrencyLimiter,
        model: &SimulatedModel,
        response_count: usize,
        mut millis: impl FnMut(usize) -> f64,
    ) -> (Vec<u32>, f64) {
        let mut in_flight = BinaryHeap::new();
        let (mut now, mut limits, mut work) = (0_u64, Vec::new(), 0.0);
        while limits.len() < response_count {
            while (in_flight.len() as u32) < limit.current_limit() {
                let busy = in_flight.len() as u32 + 1;
                let base = millis(limits.len());
                work += base;
                let slower = (f64::from(busy) / f64::from(model.knee)).max(1.0);
                let late = busy > model.timeout_limit;
                let took = if late { 120_000 } else { (base * slower) as u64 };
                in_flight.push(Reverse((now + took, took, late, busy, limit.current_epoch().0)));
            }
            let Some(Reverse((at, took, late, busy, epoch))) = in_flight.pop() else {
                break;
            };
            now = at;
            if late {
                limit.reduce_on_overload(LimitEpoch(epoch), true);
            } else {
                limit.record_success(LimitEpoch(epoch), busy, Duration::from_millis(took));
                limits.push(limit.current_limit());
            }
        }
        let most = limit.max_limit.min(model.knee).min(model.timeout_limit);
        (limits, now as f64 * f64::from(most) / work)
    }

    #[test]
    fn limit_converges_to_the_knee() {
        for (max_limit, knee) in [(8, 4), (16, 4), (16, 6), (32, 3), (64, 20)] {
            let mut limit = ConcurrencyLimiter::new(max_limit, true);
            let (limits, _) = simulate_mixed_load(
                &mut limit,
                &SimulatedModel {
                    knee,
                    timeout_limit: 1000,
                },
                5000,
                1,
            );
            let late = &limits[2000..];
            let mean = late.iter().sum::<u32>() as f64 / late.len() as f64;
            let near = (f64::from(knee) * 0.8..=f64::from(knee) * 1.6 + 1.0).contains(&mean);
            assert!(near, "maximum {max_limit}, knee {knee}: {mean}");
            assert!(limits.iter().all(|limit| (1..=max_limit).contains(limit)));
        }
    }

    #[test]
    fn experiments_cost_little_when_throughput_scales_linearly() {
        for max_limit in [1, 2, 4, 5, 8] {
            for seed in 0..20 {
                let mut limit = ConcurrencyLimiter::new(max_limit, true);
                let model = SimulatedModel {
                    knee: 64,
                    timeout_limit: 1000,
                };
                let (_, longer) = simulate_mixed_load(&mut limit, &model, 640, seed);
                assert!(
                    longer < 1.04,
                    "{max_limit} calls, seed {seed}: {longer} of the minimum time"
                );
            }
        }
    }

    #[test]
    fn recovery_restores_the_proven_limit() {
        let mut limit = ConcurrencyLimiter::new(4, true);
        simulate_mixed_load(
            &mut limit,
            &SimulatedModel {
                knee: 64,
                timeout_limit: 1000,
            },
            60,
            1,
        );
        // An outage, and then the first successful calls.
        for _ in 0..5 {
            limit.reduce_on_overload(limit.current_epoch(), false);
        }
        assert_eq!(limit.current_limit(), 1);
        for _ in 0..3 {
            limit.record_success(limit.current_epoch(), 1, Duration::from_secs(20));
        }
        limit.restore_proven_limit();
        assert_eq!(limit.current_limit(), 4);
        // If later calls succeed, the load is the cause.
        limit.reduce_on_overload(limit.current_epoch(), true);
        limit.restore_proven_limit();
        assert_eq!(limit.current_limit(), 3);
    }

    #[test]
    fn workload_change_is_not_mistaken_for_a_knee() {
        for every in 100..400 {
            let mut limit = ConcurrencyLimiter::new(4, true);
            let model = SimulatedModel {
                knee: 64,
                timeout_limit: 1000,
            };
            let (limits, longer) = simulate_load(&mut limit, &model, 1000, |index| {
                [22_500.0, 17_500.0, 2_000.0][index / every % 3]
            });
            assert!(longer < 1.08, "every {every}: {longer} of the minimum time");
            let mean = f64::from(limits.iter().sum::<u32>()) / limits.len() as f64;
            assert!(mean > 3.7, "every {every}: {mean}");
        }
    }

    #[test]
    fn timeouts_reduce_the_limit_at_once() {
        let mut limit = ConcurrencyLimiter::new(8, true);
        let (limits, _) = simulate_mixed_load(
            &mut limit,
            &SimulatedModel {
                knee: 64,
                timeout_limit: 4,
            },
            2000,
            3,
        );
        let above = limits.iter().filter(|limit| **limit > 4).count();
        assert!(
            above < 60,
            "{above} of 2000 answers came while more than 4 were allowed"
        );
        assert!(limits.iter().filter(|limit| **limit == 4).count() > 1800);
    }

    #[test]
    fn concurrent_timeouts_reduce_the_limit_once() {
        let mut limit = ConcurrencyLimiter::new(16, true);
        let epoch = limit.current_epoch();
        (0..16).for_each(|_| limit.reduce_on_overload(epoch, false));
        assert_eq!(limit.current_limit(), 12);
        limit.restore_proven_limit();
        limit.reduce_on_overload(epoch, false);
        assert_eq!(limit.current_limit(), 12, "calls of an old epoch do not count");
        let (limits, _) = simulate_mixed_load(
            &mut limit,
            &SimulatedModel {
                knee: 64,
                timeout_limit: 64,
            },
            2000,
            1,
        );
        let all = limits.iter().filter(|limit| **limit == 16).count();
        assert!(all > 1500, "{all} of 2000 at the maximum");
        for _ in 0..20 {
            limit.reduce_on_overload(limit.current_epoch(), false);
        }
        assert_eq!(limit.current_limit(), 1);
        limit.restore_proven_limit();
        assert_eq!(limit.current_limit(), 16, "the proven limit");
    }

    #[test]
    fn disabled_limiter_keeps_the_configured_limit() {
        let mut limit = ConcurrencyLimiter::new(8, false);
        let (limits, _) = simulate_mixed_load(
            &mut limit,
            &SimulatedModel {
                knee: 2,
                timeout_limit: 1000,
            },
            1000,
            1,
        );
        assert!(limits.iter().all(|limit| *limit == 8));
    }

    #[test]
    fn calls_below_the_limit_are_not_measured() {
        let mut limit = ConcurrencyLimiter::new(4, true);
        for _ in 0..1000 {
            limit.record_success(limit.current_epoch(), 3, Duration::from_secs(1));
        }
        assert_eq!((limit.current_limit(), limit.sample_count), (4, 0));
    }
}
