//! How a canary is judged: what it showed beside the stable revision, and what follows.
//!
//! The rule is that of every roll-out that is undone: slower, failing more, or later than what it replaces, by more than was allowed.
//! Each share is compared with the stable revision's in the same time, so what goes wrong for both (a model that is down, documents
//! that are broken) is no reason.

use serde::{Deserialize, Serialize};

/// When a canary is judged, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Judge {
    /// Whether it is promoted or rolled back by itself.
    pub automatic: bool,
    /// Jobs of the canary that must have ended before it can be promoted; as many of the stable revision are looked at.
    pub jobs: u32,
    /// Makespan per page beyond the stable revision's by which it is rolled back, as a share: 0.1 is a tenth.
    pub slower: f64,
    /// Share of jobs that fail, beyond the stable revision's, by which it is rolled back.
    pub failures: f64,
    /// Share of calls that pass their deadline, beyond the stable revision's.
    pub timeouts: f64,
    /// Share of pages on which a component traps or answers nonsense, beyond the stable revision's.
    pub traps: f64,
    /// Share of pages skipped or failed, beyond the stable revision's.
    pub skipped: f64,
}

impl Default for Judge {
    /// A tenth slower, a twentieth more failures, a tenth more timeouts: the usual rule for undoing a roll-out.
    fn default() -> Self {
        Self {
            automatic: true,
            jobs: 20,
            slower: 0.1,
            failures: 0.05,
            timeouts: 0.1,
            traps: 0.02,
            skipped: 0.02,
        }
    }
}

/// How a job went, as far as its revision is judged by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Showing {
    /// Jobs that ended.
    pub jobs: u64,
    /// Those that failed.
    pub failed_jobs: u64,
    /// Pages done, skipped or failed.
    pub pages: u64,
    /// Pages skipped or failed.
    pub failed_pages: u64,
    /// Calls of components.
    pub calls: u64,
    /// Those that trapped or answered nonsense.
    pub traps: u64,
    /// Those that passed their deadline.
    pub timeouts: u64,
    /// Milliseconds that jobs took from their start to their end, for those that had pages to do.
    pub millis: u64,
}

impl Showing {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            jobs: self.jobs + other.jobs,
            failed_jobs: self.failed_jobs + other.failed_jobs,
            pages: self.pages + other.pages,
            failed_pages: self.failed_pages + other.failed_pages,
            calls: self.calls + other.calls,
            traps: self.traps + other.traps,
            timeouts: self.timeouts + other.timeouts,
            millis: self.millis + other.millis,
        }
    }
}

/// What a canary and the stable revision showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The canary, since it began.
    pub canary: Showing,
    /// The stable revision, in the same time.
    pub stable: Showing,
    /// Why it ended as it did, in a sentence.
    pub reason: String,
}

/// What follows from how a canary did.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// It is too early to say.
    Wait,
    /// It did no worse.
    Promote(String),
    /// It did worse in this.
    RollBack(String),
}

/// What is compared: its name, by how much the canary may have more of it, and the counts it is the quotient of.
type Share = (&'static str, f64, fn(&Showing) -> (u64, u64));

/// Jobs of either revision from which on a bad showing is believed before the trial is over.
const ENOUGH: u64 = 5;

impl Judge {
    /// Compares a canary with the stable revision. Bad showings count as soon as there are a few jobs of both, a good one
    /// only when the trial is over. Without stable jobs beside it a canary is compared with a revision that does nothing
    /// wrong and is as quick.
    pub fn of(&self, canary: &Showing, stable: &Showing) -> Judgement {
        let wanted = u64::from(self.jobs.max(1));
        if canary.jobs < ENOUGH.min(wanted) {
            return Judgement::Wait;
        }
        let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
        let shares: [Share; 4] = [
            ("jobs fail", self.failures, |s| (s.failed_jobs, s.jobs)),
            ("of calls are too late", self.timeouts, |s| (s.timeouts, s.calls)),
            ("traps for a page", self.traps, |s| (s.traps, s.pages)),
            ("of pages are skipped or fail", self.skipped, |s| {
                (s.failed_pages, s.pages)
            }),
        ];
        for (what, allowed, of) in shares {
            let ((new, all_new), (old, all_old)) = (of(canary), of(stable));
            let (new, old) = (share(new, all_new), share(old, all_old));
            if new - old > allowed {
                return Judgement::RollBack(format!(
                    "{what}: {:.1} % against {:.1} % of the stable revision, {:.1} points are allowed",
                    new * 100.0,
                    old * 100.0,
                    allowed * 100.0
                ));
            }
        }
        let pace = |s: &Showing| share(s.millis, s.pages);
        let enough = |s: &Showing| s.jobs >= ENOUGH.min(wanted) && s.pages > 0;
        if canary.jobs >= wanted && enough(canary) && enough(stable) {
            let (new, old) = (pace(canary), pace(stable));
            if new > old * (1.0 + self.slower) {
                return Judgement::RollBack(format!(
                    "a page takes {new:.0} ms against {old:.0} ms of the stable revision, {:.0} % more are allowed",
                    self.slower * 100.0
                ));
            }
        }
        // Pace is noise without company; a trial that has none goes on until it has.
        if canary.jobs < wanted || (stable.jobs < ENOUGH.min(wanted)) {
            return Judgement::Wait;
        }
        Judgement::Promote(format!(
            "after {} jobs beside {} of the stable revision nothing was worse than its rule allows",
            canary.jobs, stable.jobs
        ))
    }

    /// Whether its figures can be meant.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            ("slower", self.slower),
            ("failures", self.failures),
            ("timeouts", self.timeouts),
            ("traps", self.traps),
            ("skipped", self.skipped),
        ];
        for (name, share) in shares {
            if !(0.0..=10.0).contains(&share) {
                return Err(format!("judge.{name} is {share}, not within 0 to 10"));
            }
        }
        if !(1..=100_000).contains(&self.jobs) {
            return Err(format!("judge.jobs is {}, not within 1 to 100000", self.jobs));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many jobs of ten pages, a second each.
    fn good(jobs: u64) -> Showing {
        Showing {
            jobs,
            pages: 10 * jobs,
            calls: 30 * jobs,
            millis: 1000 * jobs,
            ..Showing::default()
        }
    }

    #[test]
    fn a_canary_is_judged_by_what_it_did_worse() {
        let judge = Judge::default();
        assert_eq!(judge.of(&good(4), &good(40)), Judgement::Wait);
        assert_eq!(judge.of(&good(19), &good(40)), Judgement::Wait);
        assert_eq!(judge.of(&good(20), &good(4)), Judgement::Wait);
        assert!(matches!(judge.of(&good(20), &good(40)), Judgement::Promote(_)));
        let worse = [
            (
                "trap",
                Showing {
                    traps: 10,
                    ..good(20)
                },
            ),
            (
                "fail",
                Showing {
                    failed_jobs: 2,
                    ..good(20)
                },
            ),
            (
                "late",
                Showing {
                    timeouts: 90,
                    ..good(20)
                },
            ),
            (
                "skipped",
                Showing {
                    failed_pages: 10,
                    ..good(20)
                },
            ),
            (
                "ms",
                Showing {
                    millis: 23_000,
                    ..good(20)
                },
            ),
        ];
        for (what, showing) in worse {
            match judge.of(&showing, &good(40)) {
                Judgement::RollBack(reason) => assert!(reason.contains(what), "{reason}"),
                other => panic!("{what}: {other:?}"),
            }
            // Of both it is no reason.
            let all = judge.of(&showing, &showing);
            assert!(matches!(all, Judgement::Promote(_)), "{what}: {all:?}");
        }
        // Five jobs are enough to see what goes wrong, but not how quick it is.
        let failing = Showing {
            failed_jobs: 5,
            ..good(5)
        };
        assert!(matches!(judge.of(&failing, &good(5)), Judgement::RollBack(_)));
        let slow = Showing {
            millis: 50_000,
            ..good(5)
        };
        assert_eq!(judge.of(&slow, &good(5)), Judgement::Wait);
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused() {
        assert_eq!(Judge::default().check(), Ok(()));
        for wrong in [
            Judge {
                jobs: 0,
                ..Judge::default()
            },
            Judge {
                slower: f64::NAN,
                ..Judge::default()
            },
            Judge {
                traps: -0.1,
                ..Judge::default()
            },
        ] {
            assert!(wrong.check().is_err());
        }
    }
}
