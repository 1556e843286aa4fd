//! Orders beside the jobs they began, and the words that make a request count once.
//!
//! A word and its job are looked for and written in one transaction, and the file has one writer at a time: of two requests
//! with one word, the second finds the first's.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::ledger::JobRecord;
use weir_core::order::{Earlier, Idempotency, JobFilter, Order, Orders, Put};
use weir_core::{JobId, StorageError, TenantId};

use super::columns::{from_json, integer, parsed, to_json};
use super::{SqliteLedger, removals, rows};

/// How long a word is known at least, counted from the request that brought it.
const WORD_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Old words that a new order makes room for: more than it brings, so that their number falls again after a rush.
const WORDS_DROPPED: i64 = 8;
/// Most jobs in one list.
const MAX_JOBS: usize = 10_000;

#[async_trait]
impl Orders for SqliteLedger {
    async fn put(
        &self,
        record: &JobRecord,
        order: &Order,
        idempotency: Option<&Idempotency>,
    ) -> std::result::Result<Put, StorageError> {
        let (record, order, word) = (record.clone(), order.clone(), idempotency.cloned());
        self.write_counted(move |t| put(t, &record, &order, word.as_ref()))
            .await
    }

    async fn earlier(
        &self,
        tenant: &TenantId,
        word: &str,
    ) -> std::result::Result<Option<Earlier>, StorageError> {
        let (tenant, word) = (tenant.clone(), word.to_owned());
        self.reader.read(move |c| known_word(c, &tenant, &word)).await
    }

    async fn order(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> std::result::Result<Option<Order>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.reader.read(move |c| order(c, &tenant, &job)).await
    }

    async fn jobs(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
    ) -> std::result::Result<Vec<JobRecord>, StorageError> {
        let (tenant, mut filter) = (tenant.clone(), filter.clone());
        filter.limit = filter.limit.min(MAX_JOBS);
        self.reader.read(move |c| rows::jobs(c, &tenant, &filter)).await
    }

    async fn owed_webhooks(&self) -> std::result::Result<Vec<(TenantId, JobId, u32)>, StorageError> {
        self.reader.read(owed_webhooks).await
    }

    async fn webhook_tried(
        &self,
        tenant: &TenantId,
        job: &JobId,
        tries: Option<u32>,
    ) -> std::result::Result<(), StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        let removed = tries.is_none();
        self.write(move |t| webhook_tried(t, &tenant, &job, tries))
            .await?;
        if removed {
            self.desk.empty_log_soon();
        }
        Ok(())
    }
}

fn put(
    transaction: &Transaction<'_>,
    record: &JobRecord,
    order: &Order,
    word: Option<&Idempotency>,
) -> Result<Put> {
    if let Some(word) = word
        && let Some(earlier) = known_word(transaction, &order.tenant, &word.key)?
    {
        return Ok(if earlier.digest == word.digest {
            Put::Before(earlier.job)
        } else {
            Put::Differs
        });
    }
    if let Some(document) = removals::removed_document(transaction, order)? {
        return Ok(Put::Removing(document));
    }
    if let Some(word) = word {
        write_word(transaction, record, word)?;
    }
    for file in &order.files {
        removals::add(transaction, &order.tenant, &file.document, &order.job)?;
    }
    rows::write_job(transaction, record)?;
    transaction
        .prepare_cached("INSERT INTO orders (tenant, job, body, webhook_tries) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            order.tenant.as_str(),
            order.job.to_string(),
            to_json(order)?,
            order.webhook.as_ref().map(|_| 0),
        ])?;
    Ok(Put::New)
}

fn known_word(c: &Connection, tenant: &TenantId, word: &str) -> Result<Option<Earlier>> {
    c.prepare_cached("SELECT digest, job FROM words WHERE tenant = ?1 AND word = ?2")?
        .query_row(params![tenant.as_str(), word], |row| {
            Ok(Earlier {
                digest: row.get(0)?,
                job: parsed(row, 1)?,
            })
        })
        .optional()
}

fn write_word(transaction: &Transaction<'_>, record: &JobRecord, word: &Idempotency) -> Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM words WHERE (tenant, word) IN
             (SELECT tenant, word FROM words WHERE created_millis < ?1 ORDER BY created_millis LIMIT ?2)",
        )?
        .execute(params![
            integer(record.created_millis.saturating_sub(WORD_MILLIS)),
            WORDS_DROPPED,
        ])?;
    transaction
        .prepare_cached(
            "INSERT INTO words (tenant, word, digest, job, created_millis) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            record.tenant.as_str(),
            word.key,
            word.digest.as_slice(),
            record.id.to_string(),
            integer(record.created_millis),
        ])
        .map(drop)
}

fn order(c: &Connection, tenant: &TenantId, job: &JobId) -> Result<Option<Order>> {
    c.prepare_cached("SELECT body FROM orders WHERE tenant = ?1 AND job = ?2")?
        .query_row(params![tenant.as_str(), job.to_string()], |row| from_json(row, 0))
        .optional()
}

/// Removes the passwords of a job's files; whether there were any.
pub(super) fn remove_passwords(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    job: &JobId,
) -> Result<bool> {
    let Some(mut order) = order(transaction, tenant, job)? else {
        return Ok(false);
    };
    let mut removed = false;
    for file in &mut order.files {
        removed |= file.password.take().is_some();
    }
    if removed {
        replace(transaction, &order)?;
    }
    Ok(removed)
}

fn webhook_tried(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    job: &JobId,
    tries: Option<u32>,
) -> Result<()> {
    transaction
        .prepare_cached("UPDATE orders SET webhook_tries = ?3 WHERE tenant = ?1 AND job = ?2")?
        .execute(params![tenant.as_str(), job.to_string(), tries])?;
    match order(transaction, tenant, job)? {
        Some(order) if tries.is_none() => replace(
            transaction,
            &Order {
                webhook: None,
                ..order
            },
        ),
        _ => Ok(()),
    }
}

fn replace(transaction: &Transaction<'_>, order: &Order) -> Result<()> {
    transaction
        .prepare_cached("UPDATE orders SET body = ?3 WHERE tenant = ?1 AND job = ?2")?
        .execute(params![
            order.tenant.as_str(),
            order.job.to_string(),
            to_json(order)?
        ])
        .map(drop)
}

/// A webhook is owed from the moment its job has ended, so that nothing has to be written then.
fn owed_webhooks(c: &Connection) -> Result<Vec<(TenantId, JobId, u32)>> {
    c.prepare_cached(
        "SELECT orders.tenant, orders.job, orders.webhook_tries FROM orders
         JOIN jobs ON jobs.tenant = orders.tenant AND jobs.id = orders.job
         WHERE orders.webhook_tries IS NOT NULL AND jobs.state NOT IN ('queued', 'running') ORDER BY orders.job",
    )?
    .query_map([], |row| Ok((parsed(row, 0)?, parsed(row, 1)?, row.get(2)?)))?
    .collect()
}
