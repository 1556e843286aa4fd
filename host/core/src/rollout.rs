//! Who gets which revision of a pipeline, and how that changes.
//!
//! One revision is stable, another may get a share of the jobs as a canary, and a third may decide beside them without effect. A
//! job is given its revision when it begins and keeps it to its end, over every restart.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::JobId;
use crate::shadow::Shadow;

/// Who gets which revision of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// What jobs get that do not get the canary; `None` until a revision has been activated.
    pub stable: Option<u32>,
    /// What some get.
    pub canary: Option<Canary>,
    /// What decides beside them, without effect.
    #[serde(default)]
    pub shadow: Option<Shadow>,
    /// What was stable before, for a roll-back.
    pub previous: Option<u32>,
    /// Whether it stays as it is until it is unpinned.
    pub pinned: bool,
    /// Grows with each change.
    pub version: u64,
}

/// A revision on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Which.
    pub revision: u32,
    /// Share of jobs that get it, 1 to 99.
    pub percent: u32,
    /// Since when, in milliseconds since 1970.
    pub since_millis: u64,
}

/// Which of the two a job was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The stable revision.
    Stable,
    /// The one on trial.
    Canary,
}

/// What a job was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The revision.
    pub revision: u32,
    /// As what.
    pub arm: Arm,
}

impl Rollout {
    /// What a job gets. It follows from the job's id, so that no two ways of asking differ; `None` if nothing is active.
    pub fn assign(&self, job: &JobId) -> Option<Assignment> {
        let stable = self.stable.map(|revision| Assignment {
            revision,
            arm: Arm::Stable,
        });
        let canary = self.canary.filter(|canary| hundredth(job) < canary.percent);
        let canary = canary.map(|canary| Assignment {
            revision: canary.revision,
            arm: Arm::Canary,
        });
        canary.or(stable)
    }

    /// What becomes of it, or why that cannot be. (Which revisions there are is not known here.)
    pub fn change(&self, change: &Change, now_millis: u64) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        let without_effect = matches!(change, Change::Unpin | Change::Shadow { .. } | Change::Unshadow);
        if self.pinned && !without_effect {
            return Err(ChangeError::Pinned);
        }
        match *change {
            Change::Activate { revision } => {
                next.canary = None;
                next.go_to(revision);
            }
            Change::Canary { revision, percent } => {
                if !(1..=99).contains(&percent) {
                    return Err(ChangeError::Percent(percent));
                }
                match self.stable {
                    None => return Err(ChangeError::NothingActive),
                    Some(stable) if stable == revision => return Err(ChangeError::IsStable(revision)),
                    Some(_) => {}
                }
                let since_millis = match self.canary {
                    Some(canary) if canary.revision == revision => canary.since_millis,
                    _ => now_millis,
                };
                next.canary = Some(Canary {
                    revision,
                    percent,
                    since_millis,
                });
            }
            Change::Promote => {
                let canary = next.canary.take().ok_or(ChangeError::NoCanary)?;
                next.go_to(canary.revision);
            }
            Change::RollBack => match (next.canary.take(), self.previous) {
                (Some(_), _) => {}
                (None, Some(previous)) => {
                    next.stable = Some(previous);
                    next.previous = None;
                }
                (None, None) => return Err(ChangeError::NothingBefore),
            },
            Change::Pin { revision } => {
                next.canary = None;
                next.go_to(revision);
                next.pinned = true;
            }
            Change::Unpin => next.pinned = false,
            Change::Shadow { revision } => {
                match self.stable {
                    None => return Err(ChangeError::NothingActive),
                    Some(stable) if stable == revision => return Err(ChangeError::IsStable(revision)),
                    Some(_) => {}
                }
                next.shadow = Some(Shadow {
                    revision,
                    since_millis: now_millis,
                });
            }
            Change::Unshadow => {
                next.shadow.take().ok_or(ChangeError::NoShadow)?;
            }
        }
        // What is stable has nothing to be compared with.
        next.shadow = next.shadow.filter(|shadow| next.stable != Some(shadow.revision));
        next.version += 1;
        Ok(next)
    }

    fn go_to(&mut self, revision: u32) {
        if self.stable != Some(revision) {
            self.previous = self.stable.replace(revision);
        }
    }
}

/// A number from 0 to 99 that is a job's own, spread evenly.
fn hundredth(job: &JobId) -> u32 {
    let digest: [u8; 32] = Sha256::digest(job.to_string().as_bytes()).into();
    let first = u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default());
    u32::try_from(first % 100).unwrap_or(0)
}

/// A change of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// New jobs get this revision.
    Activate {
        /// Which.
        revision: u32,
    },
    /// So many of a hundred new jobs get this revision.
    Canary {
        /// Which.
        revision: u32,
        /// Of a hundred, 1 to 99.
        percent: u32,
    },
    /// The canary becomes stable.
    Promote,
    /// The canary ends or, where there is none, what was stable before is again.
    #[serde(rename = "rollback")]
    RollBack,
    /// New jobs get this revision, and no other change is taken until it is unpinned.
    Pin {
        /// Which.
        revision: u32,
    },
    /// Changes are taken again.
    Unpin,
    /// This revision decides beside the real ones, without effect.
    Shadow {
        /// Which.
        revision: u32,
    },
    /// The shadow ends.
    Unshadow,
}

impl Change {
    /// Its name on the wire.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Activate { .. } => "activate",
            Self::Canary { .. } => "canary",
            Self::Promote => "promote",
            Self::RollBack => "rollback",
            Self::Pin { .. } => "pin",
            Self::Unpin => "unpin",
            Self::Shadow { .. } => "shadow",
            Self::Unshadow => "unshadow",
        }
    }

    /// The revision it names.
    pub const fn revision(&self) -> Option<u32> {
        match *self {
            Self::Activate { revision }
            | Self::Canary { revision, .. }
            | Self::Pin { revision }
            | Self::Shadow { revision } => Some(revision),
            Self::Promote | Self::RollBack | Self::Unpin | Self::Unshadow => None,
        }
    }
}

/// A change that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It was meant for another version.
    #[error("the rollout has been changed since: it is at version {0}")]
    Moved(u64),
    /// It is pinned.
    #[error("the pipeline is pinned: unpin it first")]
    Pinned,
    /// A share that is none.
    #[error("{0} percent is no canary: give 1 to 99, or activate the revision")]
    Percent(u32),
    /// A canary beside nothing.
    #[error("no revision is active: activate one first")]
    NothingActive,
    /// A canary beside itself.
    #[error("revision {0} is the stable one already")]
    IsStable(u32),
    /// There is none to promote.
    #[error("there is no canary to promote")]
    NoCanary,
    /// There is none to end.
    #[error("there is no shadow")]
    NoShadow,
    /// There is nothing to go back to.
    #[error("there is no canary, and nothing was stable before: activate a revision")]
    NothingBefore,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(changes: &[Change]) -> Rollout {
        changes.iter().fold(Rollout::default(), |rollout, change| {
            rollout.change(change, 7).unwrap()
        })
    }

    const ACTIVATE_1: Change = Change::Activate { revision: 1 };
    const CANARY_2: Change = Change::Canary {
        revision: 2,
        percent: 10,
    };

    #[test]
    fn a_canary_gets_its_share_and_the_same_jobs_each_time() {
        let rollout = after(&[ACTIVATE_1, CANARY_2]);
        let jobs: Vec<_> = (0..5000).map(|_| JobId::new()).collect();
        let canary = |rollout: &Rollout| {
            let given = jobs.iter().map(|job| rollout.assign(job).unwrap());
            given.map(|a| a.arm == Arm::Canary).collect::<Vec<_>>()
        };
        let ten = canary(&rollout);
        let count = ten.iter().filter(|c| **c).count();
        assert!((400..600).contains(&count), "{count}");
        assert_eq!(ten, canary(&rollout));
        // Those that had it at a tenth have it at a half.
        let half = rollout.change(
            &Change::Canary {
                revision: 2,
                percent: 50,
            },
            9,
        );
        let half = half.unwrap();
        assert_eq!(half.canary.unwrap().since_millis, 7);
        assert!(ten.iter().zip(canary(&half)).all(|(ten, half)| !ten || half));
    }

    #[test]
    fn what_was_stable_is_again_after_a_roll_back() {
        let rollout = after(&[ACTIVATE_1, Change::Activate { revision: 2 }, Change::RollBack]);
        assert_eq!((rollout.stable, rollout.previous), (Some(1), None));
        assert_eq!(
            rollout.change(&Change::RollBack, 0),
            Err(ChangeError::NothingBefore)
        );
        // With a canary it is the canary that goes.
        let rollout = after(&[
            ACTIVATE_1,
            Change::Activate { revision: 3 },
            CANARY_2,
            Change::RollBack,
        ]);
        assert_eq!((rollout.stable, rollout.canary), (Some(3), None));
        let rollout = after(&[ACTIVATE_1, CANARY_2, Change::Promote]);
        assert_eq!((rollout.stable, rollout.previous), (Some(2), Some(1)));
    }

    #[test]
    fn a_pinned_pipeline_stays_until_it_is_unpinned() {
        let rollout = after(&[ACTIVATE_1, CANARY_2, Change::Pin { revision: 3 }]);
        assert_eq!((rollout.stable, rollout.canary), (Some(3), None));
        for change in [ACTIVATE_1, CANARY_2, Change::Promote, Change::RollBack] {
            assert_eq!(rollout.change(&change, 0), Err(ChangeError::Pinned));
        }
        let rollout = rollout.change(&Change::Unpin, 0).unwrap();
        assert_eq!(rollout.change(&Change::RollBack, 0).unwrap().stable, Some(1));
    }

    #[test]
    fn a_shadow_gets_no_jobs_and_ends_when_it_is_stable() {
        let shadow = Change::Shadow { revision: 2 };
        let rollout = after(&[ACTIVATE_1, Change::Pin { revision: 1 }, shadow]);
        assert_eq!(rollout.shadow.map(|s| (s.revision, s.since_millis)), Some((2, 7)));
        let given = rollout.assign(&JobId::new()).unwrap();
        assert_eq!((given.revision, given.arm), (1, Arm::Stable));
        let rollout = rollout.change(&Change::Unpin, 8).unwrap();
        let promoted = rollout.change(&Change::Activate { revision: 2 }, 8).unwrap();
        assert_eq!(promoted.shadow, None);
        assert_eq!(rollout.change(&Change::Unshadow, 8).unwrap().shadow, None);
        assert_eq!(promoted.change(&Change::Unshadow, 8), Err(ChangeError::NoShadow));
        assert_eq!(promoted.change(&shadow, 8), Err(ChangeError::IsStable(2)));
        assert_eq!(
            Rollout::default().change(&shadow, 8),
            Err(ChangeError::NothingActive)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let empty = Rollout::default();
        assert_eq!(empty.assign(&JobId::new()), None);
        assert_eq!(empty.change(&CANARY_2, 0), Err(ChangeError::NothingActive));
        assert_eq!(empty.change(&Change::Promote, 0), Err(ChangeError::NoCanary));
        let one = after(&[ACTIVATE_1]);
        for percent in [0, 100] {
            let change = Change::Canary { revision: 2, percent };
            assert_eq!(one.change(&change, 0), Err(ChangeError::Percent(percent)));
        }
        let itself = Change::Canary {
            revision: 1,
            percent: 5,
        };
        assert_eq!(one.change(&itself, 0), Err(ChangeError::IsStable(1)));
    }
}
