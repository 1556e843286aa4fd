//! Rows of components, revisions, rollouts and their audit log.
//!
//! One transaction reads a rollout, decides on the change and writes it, and the file has one writer at a time. So if two requests
//! promote the same canary, the second fails because there is no canary any more.

mod component_records;
pub(super) mod revision_assignments;
mod rollouts;

use std::ops::RangeInclusive;

use async_trait::async_trait;
use weir_core::canary_analysis::{CanaryEvidence, JobSample};
use weir_core::component::{ComponentDigest, ComponentRecord};
use weir_core::revision::{
    PipelineAuditAction, PipelineAuditRecord, PipelineRecord, PipelineStore, Revision, RevisionJobOutcome,
    RevisionSpec,
};
use weir_core::rollout::{RevisionAssignment, Rollout, RolloutAction, RolloutError};
use weir_core::{JobId, StorageError, TenantId};

use component_records::{delete_component_if_unused, find_component, list_components, write_component};
use revision_assignments::{
    assign_revision_to_job, find_assignment_of_job, sample_job_outcomes, write_job_outcome,
};
use rollouts::{find_pipeline, list_pipelines, read_rollout, write_rollout};

use super::column_values::{read_and_parse_text, read_json, to_json, to_sql_integer, to_sql_limit};
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult, SqlRow};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;

/// Maximum number of revisions or audit log entries in one list.
const MAX_LISTED_ROWS: usize = 1000;

type StorageResult<T> = Result<T, StorageError>;

#[async_trait]
impl PipelineStore for SqlLedger {
    async fn put_component_record(&self, record: &ComponentRecord) -> StorageResult<()> {
        let record = record.clone();
        self.database
            .run_write_transaction(LockedTenants::one(&record.tenant), move |t| {
                match error_if_api_key_is_unknown(t, &record.pushed_by_key)? {
                    Some(refused) => Ok(Err(refused)),
                    None => write_component(t, &record).map(Ok),
                }
            })
            .await?
    }

    async fn find_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> StorageResult<Option<ComponentRecord>> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.database
            .run_query(move |c| find_component(c, &tenant, &digest))
            .await
    }

    async fn list_components(&self, tenant: &TenantId) -> StorageResult<Vec<ComponentRecord>> {
        let tenant = tenant.clone();
        self.database
            .run_query(move |c| list_components(c, &tenant))
            .await
    }

    async fn remove_unused_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> StorageResult<Result<bool, (String, u32)>> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                delete_component_if_unused(t, &tenant, &digest)
            })
            .await
    }

    async fn add_revision_if_changed(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        spec: &RevisionSpec,
        by: &str,
        now_millis: u64,
    ) -> StorageResult<Result<Revision, ComponentDigest>> {
        let draft = Revision {
            tenant: tenant.clone(),
            pipeline: pipeline.to_owned(),
            number: 1,
            spec: spec.clone(),
            created_millis: now_millis,
            pushed_by_key: by.to_owned(),
        };
        self.database
            .run_write_transaction(
                LockedTenants::one(tenant),
                move |t| match error_if_api_key_is_unknown(t, &draft.pushed_by_key)? {
                    Some(refused) => Ok(Err(refused)),
                    None => insert_revision_if_changed(t, draft).map(Ok),
                },
            )
            .await?
    }

    async fn find_revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        number: u32,
    ) -> StorageResult<Option<Revision>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.database
            .run_query(move |c| find_revision(c, &tenant, &pipeline, number))
            .await
    }

    async fn list_revisions(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u32>,
        limit: usize,
    ) -> StorageResult<Vec<Revision>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        let limit = limit.min(MAX_LISTED_ROWS);
        self.database
            .run_query(move |c| list_revisions(c, &tenant, &pipeline, before, limit))
            .await
    }

    async fn list_pipelines(&self, tenant: &TenantId) -> StorageResult<Vec<PipelineRecord>> {
        let tenant = tenant.clone();
        self.database.run_query(move |c| list_pipelines(c, &tenant)).await
    }

    async fn find_pipeline(&self, tenant: &TenantId, name: &str) -> StorageResult<Option<PipelineRecord>> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.database
            .run_query(move |c| find_pipeline(c, &tenant, &name))
            .await
    }

    async fn change_rollout(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        version: Option<u64>,
        change: &RolloutAction,
        by: &str,
        evidence: Option<CanaryEvidence>,
        now_millis: u64,
    ) -> StorageResult<Result<Rollout, RolloutError>> {
        let (tenant, pipeline, change) = (tenant.clone(), pipeline.to_owned(), *change);
        let by = by.to_owned();
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                // Canary analysis, which gives evidence, has no API key.
                if evidence.is_none()
                    && let Some(refused) = error_if_api_key_is_unknown(t, &by)?
                {
                    return Ok(Err(refused));
                }
                let from = read_rollout(t, &tenant, &pipeline)?;
                if version.is_some_and(|version| version != from.version) {
                    return Ok(Ok(Err(RolloutError::VersionConflict(from.version))));
                }
                let to = match from.apply_action(&change, now_millis) {
                    Ok(to) => to,
                    Err(refused) => return Ok(Ok(Err(refused))),
                };
                write_rollout(t, &tenant, &pipeline, &to)?;
                let action = PipelineAuditAction::Changed {
                    change,
                    from,
                    to: to.clone(),
                };
                let entry = PipelineAuditRecord {
                    seq: 0,
                    at_millis: now_millis,
                    changed_by: by,
                    action,
                    evidence,
                };
                append_audit_entry(t, &tenant, &pipeline, entry)?;
                Ok(Ok(Ok(to)))
            })
            .await?
    }

    async fn list_audit_log(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u64>,
        limit: usize,
    ) -> StorageResult<Vec<PipelineAuditRecord>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        let limit = limit.min(MAX_LISTED_ROWS);
        self.database
            .run_query(move |c| list_audit_entries(c, &tenant, &pipeline, before, limit))
            .await
    }

    async fn assign_revision_to_job(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        job: &JobId,
    ) -> StorageResult<Option<RevisionAssignment>> {
        let (tenant, pipeline, job) = (tenant.clone(), pipeline.to_owned(), *job);
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                assign_revision_to_job(t, &tenant, &pipeline, &job)
            })
            .await
    }

    async fn find_assigned_revision_of_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> StorageResult<Option<RevisionAssignment>> {
        let (tenant, job) = (tenant.clone(), *job);
        self.database
            .run_query(move |c| find_assignment_of_job(c, &tenant, &job))
            .await
    }

    async fn record_job_outcome(&self, outcome: &RevisionJobOutcome) -> StorageResult<()> {
        let owned_outcome = outcome.clone();
        self.database
            .run_write_transaction(LockedTenants::one(&outcome.tenant), move |t| {
                write_job_outcome(t, &owned_outcome)
            })
            .await
    }

    async fn sample_ended_jobs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        within_millis: RangeInclusive<u64>,
        jobs: u32,
    ) -> StorageResult<Vec<JobSample>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.database
            .run_query(move |c| sample_job_outcomes(c, &tenant, &pipeline, revision, &within_millis, jobs))
            .await
    }
}

/// Reads the ledger and returns an error if the API key `by` does not exist. Revoked keys still exist, and a key is deleted only
/// with its tenant. So the change comes from a removed tenant and must not apply to a later tenant of the same name.
fn error_if_api_key_is_unknown(t: &SqlConnection<'_>, by: &str) -> SqlResult<Option<StorageError>> {
    let known = t.query_optional("SELECT 1 FROM api_keys WHERE id = ?1", params![by], |_| Ok(()))?;
    Ok(match known {
        Some(()) => None,
        None => Some(StorageError::NotFound {
            what: format!("key {by}: its tenant has been removed"),
        }),
    })
}

fn insert_revision_if_changed(
    t: &SqlConnection<'_>,
    mut draft: Revision,
) -> SqlResult<Result<Revision, ComponentDigest>> {
    for digest in draft.spec.components.values() {
        if find_component(t, &draft.tenant, digest)?.is_none() {
            return Ok(Err(*digest));
        }
    }
    let newest = list_revisions(t, &draft.tenant, &draft.pipeline, None, 1)?.pop();
    if let Some(newest) = newest {
        if newest.spec == draft.spec {
            return Ok(Ok(newest));
        }
        draft.number = newest.number.saturating_add(1);
    }
    t.execute(
        "INSERT INTO revisions (tenant, pipeline, number, spec, created_millis, api_key_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            draft.tenant.as_str(),
            draft.pipeline,
            draft.number,
            to_json(&draft.spec)?,
            to_sql_integer(draft.created_millis),
            draft.pushed_by_key,
        ],
    )?;
    if draft.number == 1 {
        write_rollout(t, &draft.tenant, &draft.pipeline, &Rollout::default())?;
    }
    let entry = PipelineAuditRecord {
        seq: 0,
        at_millis: draft.created_millis,
        changed_by: draft.pushed_by_key.clone(),
        action: PipelineAuditAction::Pushed {
            revision: draft.number,
        },
        evidence: None,
    };
    append_audit_entry(t, &draft.tenant, &draft.pipeline, entry)?;
    Ok(Ok(draft))
}

const SELECT_REVISION: &str =
    "SELECT tenant, pipeline, number, spec, created_millis, api_key_id FROM revisions";

fn find_revision(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    number: u32,
) -> SqlResult<Option<Revision>> {
    c.query_optional(
        &format!("{SELECT_REVISION} WHERE tenant = ?1 AND pipeline = ?2 AND number = ?3"),
        params![tenant.as_str(), pipeline, number],
        revision_from_row,
    )
}

fn list_revisions(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    before: Option<u32>,
    limit: usize,
) -> SqlResult<Vec<Revision>> {
    c.query_rows(&format!(
        "{SELECT_REVISION} WHERE tenant = ?1 AND pipeline = ?2 AND number < ?3 ORDER BY number DESC LIMIT ?4"
    ), params![
            tenant.as_str(),
            pipeline,
            before.unwrap_or(u32::MAX),
            to_sql_limit(limit)
        ], revision_from_row)
}

fn revision_from_row(row: &SqlRow<'_>) -> SqlResult<Revision> {
    Ok(Revision {
        tenant: read_and_parse_text(row, 0)?,
        pipeline: row.get(1)?,
        number: row.get(2)?,
        spec: read_json(row, 3)?,
        created_millis: row.get(4)?,
        pushed_by_key: row.get(5)?,
    })
}

fn append_audit_entry(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    mut entry: PipelineAuditRecord,
) -> SqlResult<()> {
    let last: Option<i64> = t.query_one(
        "SELECT max(seq) FROM pipeline_audit_log WHERE tenant = ?1 AND pipeline = ?2",
        params![tenant.as_str(), pipeline],
        |row| row.get(0),
    )?;
    let seq = last.unwrap_or(0).saturating_add(1);
    entry.seq = u64::try_from(seq).unwrap_or(0);
    t.execute(
        "INSERT INTO pipeline_audit_log (tenant, pipeline, seq, entry) VALUES (?1, ?2, ?3, ?4)",
        params![tenant.as_str(), pipeline, seq, to_json(&entry)?],
    )
}

fn list_audit_entries(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    before: Option<u64>,
    limit: usize,
) -> SqlResult<Vec<PipelineAuditRecord>> {
    c.query_rows("SELECT entry FROM pipeline_audit_log WHERE tenant = ?1 AND pipeline = ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4", params![
            tenant.as_str(),
            pipeline,
            before.map_or(i64::MAX, to_sql_integer),
            to_sql_limit(limit)
        ], |row| read_json(row, 0))
}
