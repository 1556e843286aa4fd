//! One look at a canary: the two questions, put for each of the things compared.

use super::statistics::{
    Count, above_by_chance, aligned, as_many_by, as_many_by_chance, at_most_above, ranks_above, shift,
};
use super::{ENOUGH, Judge, Judgement, Showing, Shown, sum};

/// What is compared: its name, by how much the canary may have more of it, and the counts it is the quotient of.
type Share = (&'static str, f64, fn(&Showing) -> (u64, u64));
/// Jobs of the stable revision that are looked at for each of the canary's: what it has beside a canary of a tenth.
const STABLE_JOBS: usize = 9;
/// Chance that a canary as good as the stable revision is rolled back, over its whole trial.
const RISK: f64 = 0.05;
/// Things compared, among which the risk is shared out.
const COMPARED: f64 = 5.0;
/// Standard deviations that leave a tenth of a normal distribution above: the chance that what is worse than allowed passes a look.
const CLEARED: f64 = 1.281_552;

/// Jobs of a canary that are enough for a look at it, and the looks there are.
#[derive(Debug, Clone)]
pub struct Look {
    pub(super) judge: Judge,
    pub(super) canary: Vec<Shown>,
    pub(super) last: bool,
    /// Jobs of the canary at the next one.
    pub(super) next: usize,
}

/// What was answered of one of the things compared.
enum Answer {
    Worse(String),
    Within,
    /// What is seen, and whether it is more than allowed.
    Open {
        seen: String,
        beyond: bool,
    },
}

impl Look {
    /// When the last of the canary's jobs ended, in milliseconds since 1970: the stable revision's are looked at up to then.
    pub fn until_millis(&self) -> u64 {
        self.canary.last().map_or(0, |job| job.at_millis)
    }

    /// How many of the stable revision's jobs at most, spread over that time.
    pub fn stable_jobs(&self) -> u32 {
        u32::try_from(self.canary.len() * STABLE_JOBS).unwrap_or(u32::MAX)
    }

    /// What the canary showed by then.
    pub fn canary(&self) -> Showing {
        sum(&self.canary)
    }

    /// Compares it with what the stable revision showed in the same time.
    pub fn judge(&self, stable: &[Shown]) -> Judgement {
        let judge = &self.judge;
        let stable: Vec<Shown> = stable
            .iter()
            .copied()
            .filter(|job| job.showing.jobs > 0)
            .collect();
        let answers: Vec<Answer> = match stable.len() < ENOUGH.min(judge.wanted()) {
            true => self.shares().map(|share| self.alone(share)).collect(),
            false => {
                let pace = std::iter::once(self.pace(&stable));
                self.shares()
                    .map(|share| self.beside(share, &stable))
                    .chain(pace)
                    .collect()
            }
        };
        let (mut open, mut beyond) = (Vec::new(), None);
        for answer in answers {
            match answer {
                Answer::Worse(reason) => return Judgement::RollBack(reason),
                Answer::Within => {}
                Answer::Open { seen, beyond: more } => {
                    if more && beyond.is_none() {
                        beyond = Some(seen.clone());
                    }
                    open.push(seen);
                }
            }
        }
        let (new, old) = (self.canary.len(), stable.len());
        if old < ENOUGH.min(judge.wanted()) {
            return Judgement::Wait(format!(
                "there are {old} jobs of the stable revision beside {new} of the canary"
            ));
        }
        if self.last {
            return match beyond {
                Some(seen) => {
                    Judgement::RollBack(format!("{seen}, and {new} jobs do not show that it is noise"))
                }
                None => Judgement::Promote(promoted(new, old)),
            };
        }
        if new < judge.wanted() {
            return Judgement::Wait(format!("the canary is looked at again after {} jobs", self.next));
        }
        match open.into_iter().next() {
            None => Judgement::Promote(promoted(new, old)),
            Some(seen) => Judgement::Wait(format!(
                "{seen}, of which {new} jobs say too little: it is looked at again after {}",
                self.next
            )),
        }
    }

    fn shares(&self) -> impl Iterator<Item = Share> {
        let judge = &self.judge;
        let shares: [Share; 4] = [
            ("jobs fail", judge.failures, |s| (s.failed_jobs, s.jobs)),
            ("of calls are too late", judge.timeouts, |s| (s.timeouts, s.calls)),
            ("traps for a page", judge.traps, |s| (s.traps, s.pages)),
            ("of pages are skipped or fail", judge.skipped, |s| {
                (s.failed_pages, s.pages)
            }),
        ];
        shares.into_iter()
    }

    /// The chance by which what one look sees of one thing may be noise.
    fn risk(&self) -> f64 {
        RISK / COMPARED / self.judge.looks().len() as f64
    }

    fn beside(&self, (what, allowed, of): Share, stable: &[Shown]) -> Answer {
        let count = |jobs: &[Shown]| Count::of(jobs.iter().map(|job| of(&job.showing)));
        let (new, old) = (count(&self.canary), count(stable));
        let more = new.share() - old.share();
        let seen = format!(
            "{what}: {:.1} % against {:.1} % of the stable revision, {:.1} points are allowed",
            new.share() * 100.0,
            old.share() * 100.0,
            allowed * 100.0
        );
        if more > allowed && as_many_by_chance(new, old) < self.risk() {
            Answer::Worse(seen)
        } else if at_most_above(new, old, CLEARED) < allowed {
            Answer::Within
        } else {
            Answer::Open {
                seen,
                beyond: more > allowed,
            }
        }
    }

    /// Without company it is compared with a revision that does nothing wrong.
    fn alone(&self, (what, allowed, of): Share) -> Answer {
        let new = Count::of(self.canary.iter().map(|job| of(&job.showing)));
        let seen = format!(
            "{what}: {:.1} %, {:.1} are allowed",
            new.share() * 100.0,
            allowed * 100.0
        );
        if as_many_by(new, allowed) < self.risk() {
            Answer::Worse(seen)
        } else {
            Answer::Open { seen, beyond: false }
        }
    }

    fn pace(&self, stable: &[Shown]) -> Answer {
        let (new, old) = aligned(paces(&self.canary), paces(stable));
        let Some(more) = shift(&new, &old) else {
            return Answer::Open {
                seen: "no pages were made".into(),
                beyond: false,
            };
        };
        let allowed = self.judge.slower.ln_1p();
        let chance = above_by_chance(ranks_above(&new, &old));
        let seen = format!(
            "a page takes {:+.1} % against the stable revision ({} jobs beside {}, {} by chance), {:.0} % more are allowed",
            more.exp_m1() * 100.0,
            new.len(),
            old.len(),
            permille(chance),
            self.judge.slower * 100.0
        );
        let quickened: Vec<f64> = new.iter().map(|pace| pace - allowed).collect();
        if more > allowed && chance < self.risk() {
            Answer::Worse(seen)
        } else if ranks_above(&quickened, &old) < -CLEARED {
            Answer::Within
        } else {
            Answer::Open {
                seen,
                beyond: more > allowed,
            }
        }
    }
}

/// When jobs ended, and the logarithm of how long they took for a page.
fn paces(jobs: &[Shown]) -> Vec<(u64, f64)> {
    let timed = jobs
        .iter()
        .filter(|job| job.showing.millis > 0 && job.showing.pages > 0);
    timed
        .map(|job| {
            let pace = job.showing.millis as f64 / job.showing.pages as f64;
            (job.at_millis, pace.ln())
        })
        .collect()
}

fn promoted(new: usize, old: usize) -> String {
    format!("after {new} jobs beside {old} of the stable revision nothing was worse than its rule allows")
}

fn permille(chance: f64) -> String {
    match chance * 1000.0 {
        few if few < 0.1 => "less than 0.1 ‰".into(),
        some => format!("{some:.1} ‰"),
    }
}
