//! Which revision each job has, and what it has shown of it, as rows.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::judge::Shown;
use weir_core::revision::{JobShowing, SHOWINGS_KEPT};
use weir_core::rollout::{Arm, Assignment};
use weir_core::{JobId, TenantId};

use super::rollout;
use crate::ledger::columns::{from_json, integer, natural, to_json};

/// Old assignments that the end of a job makes room for.
const DROPPED: i64 = 8;

pub(super) fn assign(
    t: &Transaction<'_>,
    tenant: &TenantId,
    pipeline: &str,
    job: &JobId,
) -> Result<Option<Assignment>> {
    if let Some(given) = assignment(t, tenant, job)? {
        return Ok(Some(given));
    }
    let Some(given) = rollout(t, tenant, pipeline)?.assign(job) else {
        return Ok(None);
    };
    t.prepare_cached(
        "INSERT INTO assignments (tenant, job, pipeline, revision, canary) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        tenant.as_str(),
        job.to_string(),
        pipeline,
        given.revision,
        given.arm == Arm::Canary,
    ])?;
    Ok(Some(given))
}

pub(super) fn assignment(c: &Connection, tenant: &TenantId, job: &JobId) -> Result<Option<Assignment>> {
    c.prepare_cached("SELECT revision, canary FROM assignments WHERE tenant = ?1 AND job = ?2")?
        .query_row(params![tenant.as_str(), job.to_string()], |row| {
            Ok(Assignment {
                revision: row.get(0)?,
                arm: if row.get(1)? { Arm::Canary } else { Arm::Stable },
            })
        })
        .optional()
}

pub(super) fn show(t: &Transaction<'_>, shown: &JobShowing) -> Result<()> {
    let kept = u64::try_from(SHOWINGS_KEPT.as_millis()).unwrap_or(u64::MAX);
    t.prepare_cached(
        "DELETE FROM assignments WHERE (tenant, job) IN
         (SELECT tenant, job FROM assignments WHERE tenant = ?1 AND ended_millis < ?2 LIMIT ?3)",
    )?
    .execute(params![
        shown.tenant.as_str(),
        integer(shown.at_millis.saturating_sub(kept)),
        DROPPED
    ])?;
    t.prepare_cached(
        "UPDATE assignments SET ended_millis = ?3, showing = ?4
         WHERE tenant = ?1 AND job = ?2 AND ended_millis IS NULL",
    )?
    .execute(params![
        shown.tenant.as_str(),
        shown.job.to_string(),
        integer(shown.at_millis),
        to_json(&shown.showing)?,
    ])
    .map(drop)
}

pub(super) fn shown(
    c: &Connection,
    tenant: &TenantId,
    pipeline: &str,
    revision: u32,
    within_millis: &RangeInclusive<u64>,
    jobs: u32,
) -> Result<Vec<Shown>> {
    const WITHIN: &str = "FROM assignments WHERE tenant = ?1 AND pipeline = ?2 AND revision = ?3
         AND ended_millis BETWEEN ?4 AND ?5";
    let (from, to) = (integer(*within_millis.start()), integer(*within_millis.end()));
    let all: i64 = c
        .prepare_cached(&format!("SELECT count(*) {WITHIN}"))?
        .query_row(params![tenant.as_str(), pipeline, revision, from, to], |row| {
            row.get(0)
        })?;
    // The index alone says which to leave out.
    let mut statement = c.prepare_cached(&format!(
        "SELECT ended_millis, showing FROM assignments WHERE (tenant, job) IN (
             SELECT tenant, job FROM (
                 SELECT tenant, job, row_number() OVER (ORDER BY ended_millis, job) AS place {WITHIN})
             WHERE ?6 <= ?7 OR place * ?7 / ?6 > (place - 1) * ?7 / ?6)
         ORDER BY ended_millis, job"
    ))?;
    statement
        .query_map(
            params![tenant.as_str(), pipeline, revision, from, to, all, jobs],
            |row| {
                Ok(Shown {
                    at_millis: natural(row, 0)?,
                    showing: from_json(row, 1)?,
                })
            },
        )?
        .collect()
}
