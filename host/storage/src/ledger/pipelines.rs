//! Components' records, revisions, rollouts and their history as rows.
//!
//! A change of a rollout is read, decided and written in one transaction, and the file has one writer at a time: of two
//! people who promote the same canary the second is told that there is none.

mod components;
mod showings;

use std::ops::RangeInclusive;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::component::{ComponentDigest, ComponentRecord};
use weir_core::judge::{Evidence, Shown};
use weir_core::revision::{
    ChangeRecord, History, JobShowing, PipelineBook, PipelineRecord, Recipe, Revision,
};
use weir_core::rollout::{Assignment, Change, ChangeError, Rollout};
use weir_core::{JobId, StorageError, TenantId};

use components::{component, components, forget_component, put_component};
use showings::{assign, assignment, show, shown};

use super::SqliteLedger;
use super::columns::{at_most, from_json, integer, natural, parsed, to_json};

/// Most revisions or history entries in one list.
const MAX_LISTED: usize = 1000;

type Stored<T> = std::result::Result<T, StorageError>;

#[async_trait]
impl PipelineBook for SqliteLedger {
    async fn put_component(&self, record: &ComponentRecord) -> Stored<()> {
        let record = record.clone();
        self.write(move |t| match refuse_removed_key(t, &record.by)? {
            Some(refused) => Ok(Err(refused)),
            None => put_component(t, &record).map(Ok),
        })
        .await?
    }

    async fn component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Stored<Option<ComponentRecord>> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.reader.read(move |c| component(c, &tenant, &digest)).await
    }

    async fn components(&self, tenant: &TenantId) -> Stored<Vec<ComponentRecord>> {
        let tenant = tenant.clone();
        self.reader.read(move |c| components(c, &tenant)).await
    }

    async fn forget_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Stored<std::result::Result<bool, (String, u32)>> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.write(move |t| forget_component(t, &tenant, &digest)).await
    }

    async fn add_revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        recipe: &Recipe,
        by: &str,
        now_millis: u64,
    ) -> Stored<std::result::Result<Revision, ComponentDigest>> {
        let draft = Revision {
            tenant: tenant.clone(),
            pipeline: pipeline.to_owned(),
            number: 1,
            recipe: recipe.clone(),
            created_millis: now_millis,
            by: by.to_owned(),
        };
        self.write(move |t| match refuse_removed_key(t, &draft.by)? {
            Some(refused) => Ok(Err(refused)),
            None => add_revision(t, draft).map(Ok),
        })
        .await?
    }

    async fn revision(&self, tenant: &TenantId, pipeline: &str, number: u32) -> Stored<Option<Revision>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.reader
            .read(move |c| revision(c, &tenant, &pipeline, number))
            .await
    }

    async fn revisions(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Stored<Vec<Revision>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        let limit = limit.min(MAX_LISTED);
        self.reader
            .read(move |c| revisions(c, &tenant, &pipeline, before, limit))
            .await
    }

    async fn pipelines(&self, tenant: &TenantId) -> Stored<Vec<PipelineRecord>> {
        let tenant = tenant.clone();
        self.reader.read(move |c| pipelines(c, &tenant)).await
    }

    async fn pipeline(&self, tenant: &TenantId, name: &str) -> Stored<Option<PipelineRecord>> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.reader.read(move |c| pipeline(c, &tenant, &name)).await
    }

    async fn change_rollout(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        version: Option<u64>,
        change: &Change,
        by: &str,
        evidence: Option<Evidence>,
        now_millis: u64,
    ) -> Stored<std::result::Result<Rollout, ChangeError>> {
        let (tenant, pipeline, change) = (tenant.clone(), pipeline.to_owned(), *change);
        let by = by.to_owned();
        self.write(move |t| {
            // A change that a canary's evidence made is nobody's.
            if evidence.is_none()
                && let Some(refused) = refuse_removed_key(t, &by)?
            {
                return Ok(Err(refused));
            }
            let from = rollout(t, &tenant, &pipeline)?;
            if version.is_some_and(|version| version != from.version) {
                return Ok(Ok(Err(ChangeError::Moved(from.version))));
            }
            let to = match from.change(&change, now_millis) {
                Ok(to) => to,
                Err(refused) => return Ok(Ok(Err(refused))),
            };
            write_rollout(t, &tenant, &pipeline, &to)?;
            let what = History::Changed {
                change,
                from,
                to: to.clone(),
            };
            let entry = ChangeRecord {
                seq: 0,
                at_millis: now_millis,
                by,
                what,
                evidence,
            };
            write_history(t, &tenant, &pipeline, entry)?;
            Ok(Ok(Ok(to)))
        })
        .await?
    }

    async fn history(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Stored<Vec<ChangeRecord>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        let limit = limit.min(MAX_LISTED);
        self.reader
            .read(move |c| history(c, &tenant, &pipeline, before, limit))
            .await
    }

    async fn assign(&self, tenant: &TenantId, pipeline: &str, job: &JobId) -> Stored<Option<Assignment>> {
        let (tenant, pipeline, job) = (tenant.clone(), pipeline.to_owned(), *job);
        self.write(move |t| assign(t, &tenant, &pipeline, &job)).await
    }

    async fn assignment(&self, tenant: &TenantId, job: &JobId) -> Stored<Option<Assignment>> {
        let (tenant, job) = (tenant.clone(), *job);
        self.reader.read(move |c| assignment(c, &tenant, &job)).await
    }

    async fn show(&self, showing: &JobShowing) -> Stored<()> {
        let showing = showing.clone();
        self.write(move |t| show(t, &showing)).await
    }

    async fn shown(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        within_millis: RangeInclusive<u64>,
        jobs: u32,
    ) -> Stored<Vec<Shown>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.reader
            .read(move |c| shown(c, &tenant, &pipeline, revision, &within_millis, jobs))
            .await
    }
}

/// The error of a change by a key that is not known any more. Keys go with their tenant and revoked ones stay known, so such a
/// change is one of a removed tenant, and must not reach the next tenant of its name.
fn refuse_removed_key(t: &Transaction<'_>, by: &str) -> Result<Option<StorageError>> {
    let known = t
        .prepare_cached("SELECT 1 FROM keys WHERE id = ?1")?
        .query_row([by], |_| Ok(()))
        .optional()?;
    Ok(match known {
        Some(()) => None,
        None => Some(StorageError::Missing {
            what: format!("key {by}: its tenant has been removed"),
        }),
    })
}

fn add_revision(
    t: &Transaction<'_>,
    mut draft: Revision,
) -> Result<std::result::Result<Revision, ComponentDigest>> {
    for digest in draft.recipe.components.values() {
        if component(t, &draft.tenant, digest)?.is_none() {
            return Ok(Err(*digest));
        }
    }
    let newest = revisions(t, &draft.tenant, &draft.pipeline, None, 1)?.pop();
    if let Some(newest) = newest {
        if newest.recipe == draft.recipe {
            return Ok(Ok(newest));
        }
        draft.number = newest.number.saturating_add(1);
    }
    t.prepare_cached(
        "INSERT INTO revisions (tenant, pipeline, number, recipe, created_millis, key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        draft.tenant.as_str(),
        draft.pipeline,
        draft.number,
        to_json(&draft.recipe)?,
        integer(draft.created_millis),
        draft.by,
    ])?;
    if draft.number == 1 {
        write_rollout(t, &draft.tenant, &draft.pipeline, &Rollout::default())?;
    }
    let entry = ChangeRecord {
        seq: 0,
        at_millis: draft.created_millis,
        by: draft.by.clone(),
        what: History::Pushed {
            revision: draft.number,
        },
        evidence: None,
    };
    write_history(t, &draft.tenant, &draft.pipeline, entry)?;
    Ok(Ok(draft))
}

const REVISION: &str = "SELECT tenant, pipeline, number, recipe, created_millis, key FROM revisions";

fn revision(c: &Connection, tenant: &TenantId, pipeline: &str, number: u32) -> Result<Option<Revision>> {
    c.prepare_cached(&format!(
        "{REVISION} WHERE tenant = ?1 AND pipeline = ?2 AND number = ?3"
    ))?
    .query_row(params![tenant.as_str(), pipeline, number], read_revision)
    .optional()
}

fn revisions(
    c: &Connection,
    tenant: &TenantId,
    pipeline: &str,
    before: Option<u32>,
    limit: usize,
) -> Result<Vec<Revision>> {
    c.prepare_cached(&format!(
        "{REVISION} WHERE tenant = ?1 AND pipeline = ?2 AND number < ?3 ORDER BY number DESC LIMIT ?4"
    ))?
    .query_map(
        params![
            tenant.as_str(),
            pipeline,
            before.unwrap_or(u32::MAX),
            at_most(limit)
        ],
        read_revision,
    )?
    .collect()
}

fn read_revision(row: &Row<'_>) -> Result<Revision> {
    Ok(Revision {
        tenant: parsed(row, 0)?,
        pipeline: row.get(1)?,
        number: row.get(2)?,
        recipe: from_json(row, 3)?,
        created_millis: natural(row, 4)?,
        by: row.get(5)?,
    })
}

const PIPELINE: &str = "SELECT r.pipeline, r.rollout,
        (SELECT max(number) FROM revisions v WHERE v.tenant = r.tenant AND v.pipeline = r.pipeline)
    FROM rollouts r";

fn pipelines(c: &Connection, tenant: &TenantId) -> Result<Vec<PipelineRecord>> {
    c.prepare_cached(&format!("{PIPELINE} WHERE r.tenant = ?1 ORDER BY r.pipeline"))?
        .query_map([tenant.as_str()], read_pipeline)?
        .collect()
}

fn pipeline(c: &Connection, tenant: &TenantId, name: &str) -> Result<Option<PipelineRecord>> {
    c.prepare_cached(&format!("{PIPELINE} WHERE r.tenant = ?1 AND r.pipeline = ?2"))?
        .query_row(params![tenant.as_str(), name], read_pipeline)
        .optional()
}

fn read_pipeline(row: &Row<'_>) -> Result<PipelineRecord> {
    Ok(PipelineRecord {
        name: row.get(0)?,
        rollout: from_json(row, 1)?,
        revisions: row.get::<_, Option<u32>>(2)?.unwrap_or(0),
    })
}

fn rollout(c: &Connection, tenant: &TenantId, pipeline: &str) -> Result<Rollout> {
    let read = c
        .prepare_cached("SELECT rollout FROM rollouts WHERE tenant = ?1 AND pipeline = ?2")?
        .query_row(params![tenant.as_str(), pipeline], |row| from_json(row, 0))
        .optional()?;
    Ok(read.unwrap_or_default())
}

fn write_rollout(t: &Transaction<'_>, tenant: &TenantId, pipeline: &str, rollout: &Rollout) -> Result<()> {
    t.prepare_cached("INSERT OR REPLACE INTO rollouts (tenant, pipeline, rollout) VALUES (?1, ?2, ?3)")?
        .execute(params![tenant.as_str(), pipeline, to_json(rollout)?])
        .map(drop)
}

fn write_history(
    t: &Transaction<'_>,
    tenant: &TenantId,
    pipeline: &str,
    mut entry: ChangeRecord,
) -> Result<()> {
    let last: Option<i64> = t
        .prepare_cached("SELECT max(seq) FROM history WHERE tenant = ?1 AND pipeline = ?2")?
        .query_row(params![tenant.as_str(), pipeline], |row| row.get(0))?;
    let seq = last.unwrap_or(0).saturating_add(1);
    entry.seq = u64::try_from(seq).unwrap_or(0);
    t.prepare_cached("INSERT INTO history (tenant, pipeline, seq, entry) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![tenant.as_str(), pipeline, seq, to_json(&entry)?])
        .map(drop)
}

fn history(
    c: &Connection,
    tenant: &TenantId,
    pipeline: &str,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<ChangeRecord>> {
    c.prepare_cached(
        "SELECT entry FROM history WHERE tenant = ?1 AND pipeline = ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4",
    )?
    .query_map(
        params![
            tenant.as_str(),
            pipeline,
            before.map_or(i64::MAX, integer),
            at_most(limit)
        ],
        |row| from_json(row, 0),
    )?
    .collect()
}
