//! How long the records of a tenant are kept, and the port that removes them.
//!
//! Documents, with their pages and passages, are never removed by age.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::{DocumentId, JobId, TenantId};
use crate::overridable_numbers::overridable_numbers;
use crate::settings::Settings;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

overridable_numbers! {
    /// Retention periods of a tenant's records in days. `None` uses the host's default, the setting `default_retention.<name>`. With 0,
    /// records are kept without limit.
    RetentionPeriods, "retention period", at most 36_500;
    /// Days after its end for which a job is kept.
    ended_jobs_days => "ended_jobs_days";
    /// Days for which the usage of a day is kept.
    usage_days => "usage_days";
    /// Days for which entries of the audit logs of pipelines are kept.
    audit_log_days => "audit_log_days";
    /// Days for which an API key that was revoked or has expired is kept.
    revoked_keys_days => "revoked_keys_days";
}

impl RetentionPeriods {
    /// Returns the defaults of the host.
    #[must_use]
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            ended_jobs_days: Some(settings.default_retention_ended_jobs_days.into()),
            usage_days: Some(settings.default_retention_usage_days.into()),
            audit_log_days: Some(settings.default_retention_audit_log_days.into()),
            revoked_keys_days: Some(settings.default_retention_revoked_keys_days.into()),
        }
    }

    /// Returns the period of records of this kind in days; 0 for no limit.
    #[must_use]
    pub fn days(&self, kind: RecordKind) -> u64 {
        let days = match kind {
            RecordKind::EndedJobs => self.ended_jobs_days,
            RecordKind::Usage => self.usage_days,
            RecordKind::AuditLog => self.audit_log_days,
            RecordKind::RevokedKeys => self.revoked_keys_days,
        };
        days.unwrap_or(0)
    }

    /// Returns the time before which records of this kind have expired, in milliseconds since 1970; `None` if they never expire.
    #[must_use]
    pub fn expiry_millis(&self, kind: RecordKind, now_millis: u64) -> Option<u64> {
        let day = u64::try_from(DAY.as_millis()).unwrap_or(u64::MAX);
        match self.days(kind) {
            0 => None,
            days => Some(now_millis.saturating_sub(days.saturating_mul(day))),
        }
    }
}

/// Kinds of records that expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Ended jobs, each with its events, request, component log, shadow run and recording.
    EndedJobs,
    /// The usage of days.
    Usage,
    /// Entries of the audit logs of pipelines.
    AuditLog,
    /// API keys that were revoked or have expired.
    RevokedKeys,
}

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::EndedJobs, Self::Usage, Self::AuditLog, Self::RevokedKeys];

    /// Returns the name in metrics and in the output of commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndedJobs => "ended-jobs",
            Self::Usage => "usage",
            Self::AuditLog => "audit-log",
            Self::RevokedKeys => "revoked-keys",
        }
    }
}

/// Finds and removes expired records. All times are in milliseconds since 1970.
#[async_trait]
pub trait RetentionStore: Send + Sync {
    /// Returns how many records of a tenant are older than `before`.
    async fn count_expired_records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        before: u64,
    ) -> Result<u64, StorageError>;

    /// Returns at most `limit` jobs that ended before `before`, the oldest first, without those whose webhook has to be sent.
    async fn list_expired_jobs(
        &self,
        tenant: &TenantId,
        before: u64,
        limit: u32,
    ) -> Result<Vec<JobId>, StorageError>;

    /// Returns the documents of these jobs that no other job has and that were never read: only their uploads can exist.
    async fn list_unread_documents_of_jobs(
        &self,
        tenant: &TenantId,
        jobs: &[JobId],
    ) -> Result<Vec<DocumentId>, StorageError>;

    /// Removes these jobs with everything that belongs to them alone in the ledger. Returns how many were removed. Jobs that have not ended
    /// stay.
    async fn remove_ended_jobs(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<u64, StorageError>;

    /// Removes at most `limit` records, other than jobs, that are older than `before`. Returns how many were removed.
    async fn remove_expired_records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        before: u64,
        limit: u32,
    ) -> Result<u64, StorageError>;
}
