//! Rows of the revision that each job is assigned to, with the job's metrics.

use std::ops::RangeInclusive;

use weir_core::canary_analysis::JobSample;
use weir_core::revision::{JOB_OUTCOME_RETENTION, RevisionJobOutcome};
use weir_core::rollout::{RevisionAssignment, RolloutArm};
use weir_core::{JobId, TenantId};

use super::rollouts::read_rollout;
use crate::ledger::column_values::{read_json, to_json, to_sql_integer};
use crate::ledger::sql_connection::{SqlConnection, SqlResult};
use crate::ledger::sql_values::params;

/// Maximum number of old assignments that the end of a job deletes.
const MAX_DELETED_ROWS: i64 = 8;

pub(super) fn assign_revision_to_job(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    job: &JobId,
) -> SqlResult<Option<RevisionAssignment>> {
    if let Some(assigned) = find_assignment_of_job(t, tenant, job)? {
        return Ok(Some(assigned));
    }
    let Some(assigned) = read_rollout(t, tenant, pipeline)?.assign_job(job) else {
        return Ok(None);
    };
    t.execute("INSERT INTO revision_assignments (tenant, job, pipeline, revision, is_canary) VALUES (?1, ?2, ?3, ?4, ?5)", params![
        tenant.as_str(),
        job.to_string(),
        pipeline,
        assigned.revision,
        assigned.arm == RolloutArm::Canary,
    ])?;
    Ok(Some(assigned))
}

pub(in crate::ledger) fn find_assignment_of_job(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
) -> SqlResult<Option<RevisionAssignment>> {
    c.query_optional(
        "SELECT revision, is_canary FROM revision_assignments WHERE tenant = ?1 AND job = ?2",
        params![tenant.as_str(), job.to_string()],
        |row| {
            Ok(RevisionAssignment {
                revision: row.get(0)?,
                arm: if row.get(1)? {
                    RolloutArm::Canary
                } else {
                    RolloutArm::Stable
                },
            })
        },
    )
}

pub(super) fn write_job_outcome(t: &SqlConnection<'_>, outcome: &RevisionJobOutcome) -> SqlResult<()> {
    let retention = u64::try_from(JOB_OUTCOME_RETENTION.as_millis()).unwrap_or(u64::MAX);
    t.execute(
        "DELETE FROM revision_assignments WHERE (tenant, job) IN
         (SELECT tenant, job FROM revision_assignments WHERE tenant = ?1 AND ended_millis < ?2 LIMIT ?3)",
        params![
            outcome.tenant.as_str(),
            to_sql_integer(outcome.ended_at_millis.saturating_sub(retention)),
            MAX_DELETED_ROWS
        ],
    )?;
    t.execute(
        "UPDATE revision_assignments SET ended_millis = ?3, metrics = ?4
         WHERE tenant = ?1 AND job = ?2 AND ended_millis IS NULL",
        params![
            outcome.tenant.as_str(),
            outcome.job.to_string(),
            to_sql_integer(outcome.ended_at_millis),
            to_json(&outcome.metrics)?,
        ],
    )
}

pub(super) fn sample_job_outcomes(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    revision: u32,
    within_millis: &RangeInclusive<u64>,
    jobs: u32,
) -> SqlResult<Vec<JobSample>> {
    const FROM_ENDED_JOBS: &str =
        "FROM revision_assignments WHERE tenant = ?1 AND pipeline = ?2 AND revision = ?3
         AND ended_millis BETWEEN ?4 AND ?5";
    let (from, to) = (
        to_sql_integer(*within_millis.start()),
        to_sql_integer(*within_millis.end()),
    );
    let all: i64 = c.query_one(
        &format!("SELECT count(*) {FROM_ENDED_JOBS}"),
        params![tenant.as_str(), pipeline, revision, from, to],
        |row| row.get(0),
    )?;
    // The inner query reads the index only, to select up to `jobs` rows evenly.
    c.query_rows(
        &format!(
            "SELECT ended_millis, metrics FROM revision_assignments WHERE tenant = ?1 AND job IN (
                 SELECT job FROM (
                     SELECT job, row_number() OVER (ORDER BY ended_millis, job) AS position {FROM_ENDED_JOBS}) AS ended
                 WHERE CAST(?6 AS BIGINT) <= CAST(?7 AS BIGINT) OR position * ?7 / ?6 > (position - 1) * ?7 / ?6)
             ORDER BY ended_millis, job"
        ),
        params![tenant.as_str(), pipeline, revision, from, to, all, jobs],
        |row| {
            Ok(JobSample {
                ended_at_millis: row.get(0)?,
                metrics: read_json(row, 1)?,
            })
        },
    )
}
