//! Which jobs get which revision of a pipeline, and how that changes.
//!
//! One revision is stable. Another can be a canary and get a share of the jobs. A third can be a shadow, whose
//! decisions have no effect. A job is assigned its revision when it starts and keeps it until it ends, across
//! restarts.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::JobId;
use crate::shadow::ShadowRevision;

/// Which jobs get which revision of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Revision of all jobs that do not get the canary; `None` until a revision is activated.
    pub stable: Option<u32>,
    /// Revision of a share of the jobs.
    pub canary: Option<CanaryRevision>,
    /// Revision that decides without effect.
    #[serde(default)]
    pub shadow: Option<ShadowRevision>,
    /// The stable revision before this one, for a rollback.
    pub previous: Option<u32>,
    /// Whether changes are refused until the pipeline is unpinned.
    pub pinned: bool,
    /// Increases with each change.
    pub version: u64,
}

/// A canary: a revision on trial with a share of the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRevision {
    /// The revision.
    pub revision: u32,
    /// Percentage of jobs that get it, 1 to 99.
    pub percent: u32,
    /// Start of the trial, in milliseconds since 1970.
    pub since_millis: u64,
}

/// The group that a job was assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutArm {
    /// The stable revision.
    Stable,
    /// The canary.
    Canary,
}

/// The revision that a job was assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevisionAssignment {
    /// The revision.
    pub revision: u32,
    /// The group of the job.
    pub arm: RolloutArm,
}

impl Rollout {
    /// Returns the revision for a job. It depends only on this rollout and the job's id, so repeated calls return
    /// the same revision. Returns `None` if no revision is active.
    pub fn assign_job(&self, job: &JobId) -> Option<RevisionAssignment> {
        let stable = self.stable.map(|revision| RevisionAssignment {
            revision,
            arm: RolloutArm::Stable,
        });
        let canary = self
            .canary
            .filter(|canary| assignment_hash_percent(job) < canary.percent);
        let canary = canary.map(|canary| RevisionAssignment {
            revision: canary.revision,
            arm: RolloutArm::Canary,
        });
        canary.or(stable)
    }

    /// Returns the rollout after an action, or why the action is not possible. It does not check whether the revision
    /// exists.
    pub fn apply_action(&self, change: &RolloutAction, now_millis: u64) -> Result<Self, RolloutError> {
        let mut next = self.clone();
        let is_allowed_when_pinned = matches!(
            change,
            RolloutAction::Unpin | RolloutAction::Shadow { .. } | RolloutAction::Unshadow
        );
        if self.pinned && !is_allowed_when_pinned {
            return Err(RolloutError::Pinned);
        }
        match *change {
            RolloutAction::Activate { revision } => {
                next.canary = None;
                next.set_stable_revision(revision);
            }
            RolloutAction::Canary { revision, percent } => {
                if !(1..=99).contains(&percent) {
                    return Err(RolloutError::InvalidPercent(percent));
                }
                match self.stable {
                    None => return Err(RolloutError::NoActiveRevision),
                    Some(stable) if stable == revision => return Err(RolloutError::AlreadyStable(revision)),
                    Some(_) => {}
                }
                let since_millis = match self.canary {
                    Some(canary) if canary.revision == revision => canary.since_millis,
                    _ => now_millis,
                };
                next.canary = Some(CanaryRevision {
                    revision,
                    percent,
                    since_millis,
                });
            }
            RolloutAction::Promote => {
                let canary = next.canary.take().ok_or(RolloutError::NoCanary)?;
                next.set_stable_revision(canary.revision);
            }
            RolloutAction::RollBack => match (next.canary.take(), self.previous) {
                (Some(_), _) => {}
                (None, Some(previous)) => {
                    next.stable = Some(previous);
                    next.previous = None;
                }
                (None, None) => return Err(RolloutError::NoPreviousRevision),
            },
            RolloutAction::Pin { revision } => {
                next.canary = None;
                next.set_stable_revision(revision);
                next.pinned = true;
            }
            RolloutAction::Unpin => next.pinned = false,
            RolloutAction::Shadow { revision } => {
                match self.stable {
                    None => return Err(RolloutError::NoActiveRevision),
                    Some(stable) if stable == revision => return Err(RolloutError::AlreadyStable(revision)),
                    Some(_) => {}
                }
                next.shadow = Some(ShadowRevision {
                    revision,
                    since_millis: now_millis,
                });
            }
            RolloutAction::Unshadow => {
                next.shadow.take().ok_or(RolloutError::NoShadow)?;
            }
        }
        // The stable revision cannot be its own shadow.
        next.shadow = next.shadow.filter(|shadow| next.stable != Some(shadow.revision));
        next.version += 1;
        Ok(next)
    }

    fn set_stable_revision(&mut self, revision: u32) {
        if self.stable != Some(revision) {
            self.previous = self.stable.replace(revision);
        }
    }
}

/// Returns a number from 0 to 99 that depends only on the job's id. The numbers are evenly distributed.
fn assignment_hash_percent(job: &JobId) -> u32 {
    let digest: [u8; 32] = Sha256::digest(job.to_string().as_bytes()).into();
    let first = u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default());
    u32::try_from(first % 100).unwrap_or(0)
}

/// A change of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RolloutAction {
    /// New jobs get this revision.
    Activate {
        /// The revision.
        revision: u32,
    },
    /// A percentage of new jobs gets this revision.
    Canary {
        /// The revision.
        revision: u32,
        /// Percentage, 1 to 99.
        percent: u32,
    },
    /// The canary becomes stable.
    Promote,
    /// The canary ends. If there is none, the previous stable revision becomes stable again.
    #[serde(rename = "rollback")]
    RollBack,
    /// New jobs get this revision, and other changes are refused until the pipeline is unpinned.
    Pin {
        /// The revision.
        revision: u32,
    },
    /// Changes are accepted again.
    Unpin,
    /// This revision decides as a shadow, without effect.
    Shadow {
        /// The revision.
        revision: u32,
    },
    /// The shadow ends.
    Unshadow,
}

impl RolloutAction {
    /// Returns the name in the API.
    pub const fn name(&self) -> &'static str {
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

    /// Returns the revision that the action names.
    pub const fn target_revision(&self) -> Option<u32> {
        match *self {
            Self::Activate { revision }
            | Self::Canary { revision, .. }
            | Self::Pin { revision }
            | Self::Shadow { revision } => Some(revision),
            Self::Promote | Self::RollBack | Self::Unpin | Self::Unshadow => None,
        }
    }
}

/// An action is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// The rollout is no longer at the expected version.
    #[error("the rollout has changed in the meantime: it is at version {0}")]
    VersionConflict(u64),
    /// The pipeline is pinned.
    #[error("the pipeline is pinned: unpin it first")]
    Pinned,
    /// The percentage is out of range.
    #[error("{0} percent is not valid for a canary: give 1 to 99, or activate the revision")]
    InvalidPercent(u32),
    /// No revision is active.
    #[error("no revision is active: activate one first")]
    NoActiveRevision,
    /// The revision is already the stable one.
    #[error("revision {0} is already the stable one")]
    AlreadyStable(u32),
    /// There is no canary to promote.
    #[error("there is no canary to promote")]
    NoCanary,
    /// There is no shadow to end.
    #[error("there is no shadow")]
    NoShadow,
    /// There is neither a canary nor a previous stable revision.
    #[error("there is neither a canary nor a previous stable revision: activate a revision")]
    NoPreviousRevision,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply_actions(changes: &[RolloutAction]) -> Rollout {
        changes.iter().fold(Rollout::default(), |rollout, change| {
            rollout.apply_action(change, 7).unwrap()
        })
    }

    const ACTIVATE_1: RolloutAction = RolloutAction::Activate { revision: 1 };
    const CANARY_2: RolloutAction = RolloutAction::Canary {
        revision: 2,
        percent: 10,
    };

    #[test]
    fn canary_gets_its_share_and_always_the_same_jobs() {
        let rollout = apply_actions(&[ACTIVATE_1, CANARY_2]);
        let jobs: Vec<_> = (0..5000).map(|_| JobId::new()).collect();
        let canary = |rollout: &Rollout| {
            let assignments = jobs.iter().map(|job| rollout.assign_job(job).unwrap());
            assignments
                .map(|a| a.arm == RolloutArm::Canary)
                .collect::<Vec<_>>()
        };
        let ten = canary(&rollout);
        let count = ten.iter().filter(|c| **c).count();
        assert!((400..600).contains(&count), "{count}");
        assert_eq!(ten, canary(&rollout));
        // Jobs that got the canary at 10 % also get it at 50 %.
        let half = rollout.apply_action(
            &RolloutAction::Canary {
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
    fn rollback_restores_the_previous_revision() {
        let rollout = apply_actions(&[
            ACTIVATE_1,
            RolloutAction::Activate { revision: 2 },
            RolloutAction::RollBack,
        ]);
        assert_eq!((rollout.stable, rollout.previous), (Some(1), None));
        assert_eq!(
            rollout.apply_action(&RolloutAction::RollBack, 0),
            Err(RolloutError::NoPreviousRevision)
        );
        // If there is a canary, a rollback ends the canary.
        let rollout = apply_actions(&[
            ACTIVATE_1,
            RolloutAction::Activate { revision: 3 },
            CANARY_2,
            RolloutAction::RollBack,
        ]);
        assert_eq!((rollout.stable, rollout.canary), (Some(3), None));
        let rollout = apply_actions(&[ACTIVATE_1, CANARY_2, RolloutAction::Promote]);
        assert_eq!((rollout.stable, rollout.previous), (Some(2), Some(1)));
    }

    #[test]
    fn pinned_pipeline_refuses_changes_until_unpinned() {
        let rollout = apply_actions(&[ACTIVATE_1, CANARY_2, RolloutAction::Pin { revision: 3 }]);
        assert_eq!((rollout.stable, rollout.canary), (Some(3), None));
        for change in [
            ACTIVATE_1,
            CANARY_2,
            RolloutAction::Promote,
            RolloutAction::RollBack,
        ] {
            assert_eq!(rollout.apply_action(&change, 0), Err(RolloutError::Pinned));
        }
        let rollout = rollout.apply_action(&RolloutAction::Unpin, 0).unwrap();
        assert_eq!(
            rollout.apply_action(&RolloutAction::RollBack, 0).unwrap().stable,
            Some(1)
        );
    }

    #[test]
    fn shadow_gets_no_jobs_and_ends_when_it_becomes_stable() {
        let shadow = RolloutAction::Shadow { revision: 2 };
        let rollout = apply_actions(&[ACTIVATE_1, RolloutAction::Pin { revision: 1 }, shadow]);
        assert_eq!(rollout.shadow.map(|s| (s.revision, s.since_millis)), Some((2, 7)));
        let assignment = rollout.assign_job(&JobId::new()).unwrap();
        assert_eq!((assignment.revision, assignment.arm), (1, RolloutArm::Stable));
        let rollout = rollout.apply_action(&RolloutAction::Unpin, 8).unwrap();
        let promoted = rollout
            .apply_action(&RolloutAction::Activate { revision: 2 }, 8)
            .unwrap();
        assert_eq!(promoted.shadow, None);
        assert_eq!(
            rollout.apply_action(&RolloutAction::Unshadow, 8).unwrap().shadow,
            None
        );
        assert_eq!(
            promoted.apply_action(&RolloutAction::Unshadow, 8),
            Err(RolloutError::NoShadow)
        );
        assert_eq!(
            promoted.apply_action(&shadow, 8),
            Err(RolloutError::AlreadyStable(2))
        );
        assert_eq!(
            Rollout::default().apply_action(&shadow, 8),
            Err(RolloutError::NoActiveRevision)
        );
    }

    #[test]
    fn invalid_rollout_actions_are_rejected() {
        let empty = Rollout::default();
        assert_eq!(empty.assign_job(&JobId::new()), None);
        assert_eq!(
            empty.apply_action(&CANARY_2, 0),
            Err(RolloutError::NoActiveRevision)
        );
        assert_eq!(
            empty.apply_action(&RolloutAction::Promote, 0),
            Err(RolloutError::NoCanary)
        );
        let one = apply_actions(&[ACTIVATE_1]);
        for percent in [0, 100] {
            let change = RolloutAction::Canary { revision: 2, percent };
            assert_eq!(
                one.apply_action(&change, 0),
                Err(RolloutError::InvalidPercent(percent))
            );
        }
        let itself = RolloutAction::Canary {
            revision: 1,
            percent: 5,
        };
        assert_eq!(one.apply_action(&itself, 0), Err(RolloutError::AlreadyStable(1)));
    }
}
