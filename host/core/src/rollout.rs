//! Revisions of pipelines, and who gets which.
//!
//! A revision is a manifest with the components it names by digest. It is numbered from 1 within its pipeline and never
//! changes. What changes is the rollout: which revision is stable, and which, as a canary, gets a share of the jobs. A job is
//! given its revision when it begins and keeps it to its end, over every restart; that choice is written down with it, and so
//! is how the job went, which is what a canary is judged by.

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::component::{ComponentDigest, ComponentRecord, ComponentsByRole};
use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::judge::{Evidence, Showing, Shown};
use crate::ledger::JobState;
use crate::manifest::Manifest;
use crate::shadow::Shadow;

/// What a revision is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Settings, rights, limits; its paths are empty, since components are named by digest.
    pub manifest: Manifest,
    /// The roles that are not left to the default components.
    pub components: ComponentsByRole,
}

/// A revision of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Whose it is.
    pub tenant: TenantId,
    /// The pipeline.
    pub pipeline: String,
    /// Its number, from 1.
    pub number: u32,
    /// What it is made of.
    pub recipe: Recipe,
    /// When it was pushed, in milliseconds since 1970.
    pub created_millis: u64,
    /// Public part of the key it was pushed with.
    pub by: String,
}

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

/// An entry of a pipeline's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Its place, from 1.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
    /// Public part of the key of whoever made it; `judge` if nobody did.
    pub by: String,
    /// What was done.
    pub what: History,
    /// What it was done for, if a canary was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What a pipeline's history tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum History {
    /// A revision was pushed.
    Pushed {
        /// Its number.
        revision: u32,
    },
    /// The rollout was changed.
    Changed {
        /// How.
        change: Change,
        /// From.
        from: Rollout,
        /// To.
        to: Rollout,
    },
}

/// How a job of a revision ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobShowing {
    /// Whose it was.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The state it ended in.
    pub state: JobState,
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
    /// What it showed.
    pub showing: Showing,
}

/// How long showings are kept.
pub const SHOWINGS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A pipeline and its rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineRecord {
    /// Its name.
    pub name: String,
    /// Revisions it has.
    pub revisions: u32,
    /// Who gets which.
    pub rollout: Rollout,
}

/// Keeps components' records, revisions, rollouts and how they did. Every call is a tenant's own.
#[async_trait]
pub trait PipelineBook: Send + Sync {
    /// Writes a component's record; one that is there already stays as it is, but for its name.
    async fn put_component(&self, record: &ComponentRecord) -> Result<(), StorageError>;

    /// A component's record.
    async fn component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<ComponentRecord>, StorageError>;

    /// A tenant's components, newest first.
    async fn components(&self, tenant: &TenantId) -> Result<Vec<ComponentRecord>, StorageError>;

    /// Forgets a component that no revision names; `Err` with the pipeline and number of one that does.
    async fn forget_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Result<bool, (String, u32)>, StorageError>;

    /// Adds a revision under the next number, with its entry in the history. The same recipe as the newest one's is that one
    /// again: pushing twice is pushing once. `Err` names a component that is not here.
    async fn add_revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        recipe: &Recipe,
        by: &str,
        now_millis: u64,
    ) -> Result<Result<Revision, ComponentDigest>, StorageError>;

    /// A revision.
    async fn revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        number: u32,
    ) -> Result<Option<Revision>, StorageError>;

    /// A pipeline's revisions before a number, newest first, at most `limit`.
    async fn revisions(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<Revision>, StorageError>;

    /// A tenant's pipelines, by name.
    async fn pipelines(&self, tenant: &TenantId) -> Result<Vec<PipelineRecord>, StorageError>;

    /// A pipeline; `None` if nothing was ever pushed under that name.
    async fn pipeline(&self, tenant: &TenantId, name: &str) -> Result<Option<PipelineRecord>, StorageError>;

    /// Changes a rollout, if it is at `version` where one is given, and writes its history, all or nothing; durable when it
    /// returns, with the rollout as it is then. `Err` says why the change cannot be.
    #[allow(clippy::too_many_arguments)] // what a line of the history is made of
    async fn change_rollout(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        version: Option<u64>,
        change: &Change,
        by: &str,
        evidence: Option<Evidence>,
        now_millis: u64,
    ) -> Result<Result<Rollout, ChangeError>, StorageError>;

    /// A pipeline's history before a place, newest first, at most `limit`.
    async fn history(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<ChangeRecord>, StorageError>;

    /// What a job was given; if it has been given nothing, what the rollout gives it now, written down before this returns.
    /// `None` if nothing is active.
    async fn assign(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        job: &JobId,
    ) -> Result<Option<Assignment>, StorageError>;

    /// What a job was given, if it was.
    async fn assignment(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Assignment>, StorageError>;

    /// Writes down how a job went that was given a revision; once, however often it is told.
    async fn show(&self, showing: &JobShowing) -> Result<(), StorageError>;

    /// What jobs of a revision showed that ended within these milliseconds since 1970, in the order of their ends; of more than
    /// `jobs` as many, spread evenly over them.
    async fn shown(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        within_millis: RangeInclusive<u64>,
        jobs: u32,
    ) -> Result<Vec<Shown>, StorageError>;
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
