//! Tests of the canary analysis on fixed cases, and measurements of its error rates on simulated jobs.

use super::*;

/// Returns this many jobs with these metrics. They end one millisecond after the other.
fn make_jobs(many: usize, each: JobMetrics) -> Vec<JobSample> {
    let after = |n: usize| n as u64;
    (0..many)
        .map(|n| JobSample {
            ended_at_millis: after(n),
            metrics: each,
        })
        .collect()
}

/// Ten pages in one second.
const GOOD_JOB: JobMetrics = JobMetrics {
    jobs: 1,
    failed_jobs: 0,
    pages: 10,
    failed_pages: 0,
    calls: 30,
    traps: 0,
    timeouts: 0,
    millis: 1000,
};

fn evaluate(config: &CanaryAnalysisConfig, canary: &[JobSample], stable: &[JobSample]) -> CanaryAction {
    match config.select_latest_due_evaluation(canary) {
        Some(evaluation) => {
            let mut stable_until_then: Vec<JobSample> = stable.to_vec();
            stable_until_then.retain(|job| job.ended_at_millis <= evaluation.last_job_ended_at_millis());
            stable_until_then.truncate(evaluation.max_stable_jobs() as usize);
            evaluation.decide_canary_action(&stable_until_then)
        }
        None => CanaryAction::Wait(String::new()),
    }
}

#[test]
fn worse_canary_is_rolled_back_with_the_reason() {
    let config = CanaryAnalysisConfig::default();
    let good = |many| make_jobs(many, GOOD_JOB);
    assert!(config.select_latest_due_evaluation(&good(4)).is_none());
    assert!(matches!(
        evaluate(&config, &good(19), &good(80)),
        CanaryAction::Wait(_)
    ));
    assert!(matches!(
        evaluate(&config, &good(40), &good(4)),
        CanaryAction::Wait(_)
    ));
    match evaluate(&config, &good(40), &good(40)) {
        CanaryAction::Promote(reason) => assert!(reason.starts_with("after 40 jobs and 40"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let worse = [
        ("trap", JobMetrics { traps: 1, ..GOOD_JOB }),
        (
            "fail",
            JobMetrics {
                failed_jobs: 1,
                ..GOOD_JOB
            },
        ),
        (
            "timeout",
            JobMetrics {
                timeouts: 9,
                ..GOOD_JOB
            },
        ),
        (
            "skipped",
            JobMetrics {
                failed_pages: 2,
                ..GOOD_JOB
            },
        ),
        (
            "% compared to the stable revision (40 and",
            JobMetrics {
                millis: 1150,
                ..GOOD_JOB
            },
        ),
    ];
    for (expected, metrics) in worse {
        let canary = make_jobs(40, metrics);
        match evaluate(&config, &canary, &good(80)) {
            CanaryAction::RollBack(reason) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
        // If both revisions do it, the canary is promoted, but it takes more jobs to show that they are equal.
        let all = evaluate(&config, &make_jobs(320, metrics), &make_jobs(320, metrics));
        assert!(matches!(all, CanaryAction::Promote(_)), "{expected}: {all:?}");
    }
}

#[test]
fn constant_failure_is_found_early_and_one_failure_is_not() {
    let config = CanaryAnalysisConfig::default();
    let failing = JobMetrics {
        failed_jobs: 1,
        ..GOOD_JOB
    };
    let stable = make_jobs(40, GOOD_JOB);
    assert!(matches!(
        evaluate(&config, &make_jobs(10, failing), &stable),
        CanaryAction::RollBack(_)
    ));
    // The same while the stable revision has no jobs yet.
    assert!(matches!(
        evaluate(&config, &make_jobs(5, failing), &[]),
        CanaryAction::RollBack(_)
    ));
    let slow = JobMetrics {
        millis: 20_000,
        ..GOOD_JOB
    };
    assert!(matches!(
        evaluate(&config, &make_jobs(10, slow), &stable),
        CanaryAction::RollBack(_)
    ));
    // One failure of five jobs is four times the limit, but it can come from a broken document.
    let mut one = make_jobs(20, GOOD_JOB);
    one[3].metrics = failing;
    for job_count in [5, 10, 20] {
        let action = evaluate(&config, &one[..job_count], &stable);
        assert!(matches!(action, CanaryAction::Wait(_)), "{job_count}: {action:?}");
    }
}

#[test]
fn evaluation_ignores_jobs_after_its_job_count() {
    let config = CanaryAnalysisConfig::default();
    let (mut canary, mut stable) = (make_jobs(20, GOOD_JOB), make_jobs(80, GOOD_JOB));
    canary[7].metrics.traps = 1;
    let first = evaluate(&config, &canary, &stable);
    assert!(matches!(first, CanaryAction::Wait(_)), "{first:?}");
    // Nothing changes until the fortieth job, whatever the other jobs show.
    canary.extend(make_jobs(
        19,
        JobMetrics {
            traps: 10,
            ..GOOD_JOB
        },
    ));
    stable.extend(
        make_jobs(
            9,
            JobMetrics {
                millis: 9,
                ..GOOD_JOB
            },
        )
        .into_iter()
        .map(|job| JobSample {
            ended_at_millis: 30,
            ..job
        }),
    );
    assert_eq!(evaluate(&config, &canary, &stable), first);
    canary.push(canary[38]);
    assert_ne!(evaluate(&config, &canary, &stable), first);
    // Cancelled jobs do not count.
    let cancelled = make_jobs(40, JobMetrics { jobs: 0, ..GOOD_JOB });
    assert!(config.select_latest_due_evaluation(&cancelled).is_none());
}

#[test]
fn trial_ends_at_the_last_evaluation() {
    let config_with_min_jobs = |jobs| CanaryAnalysisConfig {
        min_jobs: jobs,
        ..CanaryAnalysisConfig::default()
    };
    assert_eq!(
        config_with_min_jobs(20).evaluation_job_counts(),
        [5, 10, 20, 40, 80, 160, 320]
    );
    assert_eq!(config_with_min_jobs(1).evaluation_job_counts(), [1, 2, 4, 8, 16]);
    assert_eq!(
        config_with_min_jobs(7).evaluation_job_counts(),
        [7, 14, 28, 56, 112]
    );
    assert_eq!(
        (
            config_with_min_jobs(20).max_evaluated_jobs(),
            config_with_min_jobs(u32::MAX).max_evaluated_jobs()
        ),
        (320, 16_000)
    );
    // Jobs without pages give no time per page, so the observed values decide at the last evaluation.
    let nothing = JobMetrics {
        pages: 0,
        millis: 0,
        ..GOOD_JOB
    };
    let action_after = |many| {
        evaluate(
            &config_with_min_jobs(20),
            &make_jobs(many, nothing),
            &make_jobs(many, nothing),
        )
    };
    assert!(
        matches!(action_after(160), CanaryAction::Wait(_)),
        "{:?}",
        action_after(160)
    );
    assert!(
        matches!(action_after(320), CanaryAction::Promote(_)),
        "{:?}",
        action_after(320)
    );
    // A canary without jobs of the stable revision waits for them.
    let last = evaluate(&config_with_min_jobs(20), &make_jobs(320, GOOD_JOB), &[]);
    assert!(matches!(last, CanaryAction::Wait(_)), "{last:?}");
}

#[test]
fn invalid_analysis_config_is_rejected() {
    assert_eq!(CanaryAnalysisConfig::default().validate(), Ok(()));
    for wrong in [
        CanaryAnalysisConfig {
            min_jobs: 0,
            ..CanaryAnalysisConfig::default()
        },
        CanaryAnalysisConfig {
            max_slowdown: f64::NAN,
            ..CanaryAnalysisConfig::default()
        },
        CanaryAnalysisConfig {
            max_trap_increase: -0.1,
            ..CanaryAnalysisConfig::default()
        },
    ] {
        assert!(wrong.validate().is_err());
    }
}

/// Deterministic pseudo-random numbers (SplitMix64).
struct SplitMixRng(u64);

impl SplitMixRng {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn next_fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next_below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    fn next_bool(&mut self, chance: f64) -> bool {
        self.next_fraction() < chance
    }

    /// Standard normal distribution (Box and Muller).
    fn next_normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.next_fraction()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.next_fraction()).cos()
    }
}

/// How a simulated revision differs from the stable one.
#[derive(Clone, Copy)]
struct SimulatedRevision {
    /// Factor of the time per page.
    duration_factor: f64,
    /// Fraction of pages that trap.
    trap_rate: f64,
}

const UNCHANGED_REVISION: SimulatedRevision = SimulatedRevision {
    duration_factor: 1.0,
    trap_rate: 0.0,
};

/// The simulated jobs.
#[derive(Clone, Copy)]
struct SimulatedLoad {
    /// Maximum pages of a job.
    max_pages: u64,
    /// Fraction of jobs with scans, whose pages take thirty times as long.
    scan_rate: f64,
    /// Fraction of jobs that fail. In addition, one document in twenty makes the component of any revision trap on
    /// some of its pages.
    failure_rate: f64,
}

/// Simulates a trial on a host with changing load: its load is an AR(1) process with a standard deviation of a
/// quarter, each job varies by a fifth around it, and each job has 50 ms of overhead.
fn simulate_trial(
    kind: SimulatedRevision,
    load: SimulatedLoad,
    percent: f64,
    rng: &mut SplitMixRng,
) -> (CanaryAction, usize) {
    let config = CanaryAnalysisConfig::default();
    let (mut canary, mut stable, mut host) = (Vec::new(), Vec::new(), 0.0);
    let mut evaluated_jobs = None;
    let evaluation_job_counts = config.evaluation_job_counts();
    for at_millis in 0.. {
        host = 0.9 * host + 0.11 * rng.next_normal();
        let is_canary = rng.next_bool(percent);
        let SimulatedRevision {
            duration_factor: slower,
            trap_rate: traps,
        } = if is_canary { kind } else { UNCHANGED_REVISION };
        let pages = 1 + rng.next_below(load.max_pages);
        let scan = if rng.next_bool(load.scan_rate) { 30.0 } else { 1.0 };
        let millis_per_page = 70.0 * scan * slower * (host + 0.2 * rng.next_normal()).exp();
        let broken = rng.next_bool(0.05);
        let trapped = (0..pages).filter(|_| rng.next_bool(traps) || broken && rng.next_bool(0.3));
        let trapped = trapped.count() as u64;
        let job_metrics = JobMetrics {
            jobs: 1,
            failed_jobs: u64::from(rng.next_bool(load.failure_rate)),
            pages,
            calls: 3 * pages,
            traps: trapped,
            millis: (50.0 * slower * (host + 0.2 * rng.next_normal()).exp() + millis_per_page * pages as f64)
                as u64,
            ..JobMetrics::default()
        };
        let arm = if is_canary { &mut canary } else { &mut stable };
        arm.push(JobSample {
            ended_at_millis: at_millis,
            metrics: job_metrics,
        });
        let due_evaluation = evaluation_job_counts
            .contains(&canary.len())
            .then_some(canary.len());
        if is_canary && due_evaluation != evaluated_jobs {
            evaluated_jobs = due_evaluation.or(evaluated_jobs);
            match evaluate(&config, &canary, &stable) {
                CanaryAction::Wait(_) => {}
                ended => return (ended, canary.len()),
            }
        }
        assert!(
            canary.len() <= config.max_evaluated_jobs() as usize,
            "the trial did not end"
        );
    }
    unreachable!("the range of times has no end");
}

/// Returns the fractions of trials that were rolled back and promoted, and the median number of jobs.
fn simulate_trials(kind: SimulatedRevision, load: SimulatedLoad, percent: f64) -> (f64, f64, usize) {
    const TRIALS: usize = 200;
    let mut rng = SplitMixRng(20_261_121);
    let ended: Vec<_> = (0..TRIALS)
        .map(|_| simulate_trial(kind, load, percent, &mut rng))
        .collect();
    let count = |wanted: fn(&CanaryAction) -> bool| ended.iter().filter(|(end, _)| wanted(end)).count();
    let mut took: Vec<usize> = ended.iter().map(|(_, jobs)| *jobs).collect();
    took.sort_unstable();
    (
        count(|end| matches!(end, CanaryAction::RollBack(_))) as f64 / TRIALS as f64,
        count(|end| matches!(end, CanaryAction::Promote(_))) as f64 / TRIALS as f64,
        took[TRIALS / 2],
    )
}

const LETTER_LOAD: SimulatedLoad = SimulatedLoad {
    max_pages: 3,
    scan_rate: 0.0,
    failure_rate: 0.01,
};
const BOOK_LOAD: SimulatedLoad = SimulatedLoad {
    max_pages: 40,
    scan_rate: 0.0,
    failure_rate: 0.01,
};
const MIXED_LOAD: SimulatedLoad = SimulatedLoad {
    max_pages: 10,
    scan_rate: 0.1,
    failure_rate: 0.02,
};

/// The documentation of the module reports the measured rates.
#[test]
fn noise_rolls_back_few_good_canaries() {
    for (load, percent) in [
        (LETTER_LOAD, 0.5),
        (LETTER_LOAD, 0.1),
        (BOOK_LOAD, 0.2),
        (MIXED_LOAD, 0.2),
    ] {
        let (rolled_back, promoted, jobs) = simulate_trials(UNCHANGED_REVISION, load, percent);
        println!("unchanged: {rolled_back} rolled back, {promoted} promoted, {jobs} jobs");
        assert!(rolled_back <= 0.05, "{rolled_back}");
        assert!(promoted >= 0.95, "{promoted}");
    }
}

#[test]
fn fifteen_percent_slower_canary_is_not_promoted() {
    let slow = SimulatedRevision {
        duration_factor: 1.15,
        ..UNCHANGED_REVISION
    };
    for (load, percent) in [
        (LETTER_LOAD, 0.5),
        (LETTER_LOAD, 0.1),
        (BOOK_LOAD, 0.2),
        (MIXED_LOAD, 0.2),
    ] {
        let (rolled_back, promoted, jobs) = simulate_trials(slow, load, percent);
        println!("slower: {rolled_back} rolled back, {promoted} promoted, {jobs} jobs");
        assert!(promoted <= 0.1, "{promoted}");
    }
}

#[test]
fn canary_that_traps_on_one_page_of_twenty_is_not_promoted() {
    let traps = SimulatedRevision {
        trap_rate: 0.05,
        ..UNCHANGED_REVISION
    };
    for (load, percent) in [
        (LETTER_LOAD, 0.5),
        (LETTER_LOAD, 0.1),
        (BOOK_LOAD, 0.2),
        (MIXED_LOAD, 0.2),
    ] {
        let (rolled_back, promoted, jobs) = simulate_trials(traps, load, percent);
        println!("traps: {rolled_back} rolled back, {promoted} promoted, {jobs} jobs");
        assert!(promoted <= 0.05, "{promoted}");
    }
}
