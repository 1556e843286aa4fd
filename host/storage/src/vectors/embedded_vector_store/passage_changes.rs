//! Writing and removing passages.

use rusqlite::{Connection, OptionalExtension as _, params};
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use super::half_vector;
use super::passage_database::{PassageDatabase, PassageNumber, TenantNumber};
use crate::vectors::passage_payload::PassagePoint;

/// Passages of a tenant that are removed.
#[derive(Debug, Clone)]
pub(super) enum PassageSelection {
    All,
    Document(DocumentId),
    Pages(DocumentId, Vec<PageNumber>),
}

impl PassageDatabase {
    pub(super) fn insert_or_find_tenant(&mut self, tenant: &TenantId) -> Result<TenantNumber, StorageError> {
        self.file.run_transaction(|c| {
            let insert = "INSERT INTO tenants (name, passages) VALUES (?1, 0) ON CONFLICT DO NOTHING";
            c.execute(insert, [tenant.as_str()])?;
            let select = "SELECT number FROM tenants WHERE name = ?1";
            c.query_row(select, [tenant.as_str()], |row| row.get(0))
        })
    }

    /// Removes a tenant that has no passages.
    pub(super) fn delete_tenant(&mut self, tenant: TenantNumber) -> Result<(), StorageError> {
        self.file.run_transaction(|c| {
            c.execute("DELETE FROM tenants WHERE number = ?1", [tenant])
                .map(drop)
        })
    }

    /// Writes or replaces passages. Returns how many more the tenant has.
    pub(super) fn upsert_passages(
        &mut self,
        tenant: TenantNumber,
        points: &[PassagePoint],
    ) -> Result<u64, StorageError> {
        let payloads = points
            .iter()
            .map(|point| serde_json::to_string(&point.payload))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| self.file.location().failed_error(e))?;
        self.file.run_transaction(|c| {
            let mut added = 0;
            for (point, payload) in points.iter().zip(&payloads) {
                let place = &point.payload;
                let select = "SELECT number FROM passages WHERE tenant = ?1 AND document = ?2 AND page = ?3 AND passage = ?4 \
                              AND id = ?5";
                let (document, id) = (place.document.as_bytes(), point.id.as_bytes());
                let replaced = c
                    .prepare_cached(select)?
                    .query_row(params![tenant, document, place.page, place.passage, id], |row| {
                        row.get(0)
                    })
                    .optional()?;
                match replaced {
                    Some(number) => delete_passage(c, tenant, number)?,
                    None => added += 1,
                }
                let insert = "INSERT INTO passages (tenant, document, page, passage, id, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                c.prepare_cached(insert)?.execute(params![
                    tenant,
                    document,
                    place.page,
                    place.passage,
                    id,
                    payload
                ])?;
                let number = c.last_insert_rowid();
                c.prepare_cached("INSERT INTO vectors VALUES (?1, ?2, ?3)")?
                    .execute(params![tenant, number, half_vector::encode(&point.dense_vector)])?;
            }
            add_to_passage_count(c, tenant, added)?;
            Ok(u64::try_from(added).unwrap_or_default())
        })
    }

    /// Removes at most `limit` of the selected passages. Returns how many were removed.
    pub(super) fn remove_passages(
        &mut self,
        tenant: TenantNumber,
        selection: &PassageSelection,
        limit: usize,
    ) -> Result<u64, StorageError> {
        self.file.run_transaction(|c| {
            let mut numbers: Vec<PassageNumber> = Vec::new();
            let mut select = |condition: &str, values: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<()> {
                let left = limit.saturating_sub(numbers.len());
                let sql = format!("SELECT number FROM passages WHERE tenant = {condition} LIMIT {left}");
                let mut select = c.prepare(&sql)?;
                for number in select.query_map(values, |row| row.get(0))? {
                    numbers.push(number?);
                }
                Ok(())
            };
            match selection {
                PassageSelection::All => select("?1", &[&tenant])?,
                PassageSelection::Document(document) => {
                    select("?1 AND document = ?2", &[&tenant, document.as_bytes()])?;
                }
                PassageSelection::Pages(document, pages) => {
                    for page in pages {
                        let values: [&dyn rusqlite::ToSql; 3] = [&tenant, document.as_bytes(), page];
                        select("?1 AND document = ?2 AND page = ?3", &values)?;
                    }
                }
            }
            for number in &numbers {
                delete_passage(c, tenant, *number)?;
            }
            let removed = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
            add_to_passage_count(c, tenant, -removed)?;
            Ok(numbers.len() as u64)
        })
    }

    /// Records that the derived indexes have all passages up to a number, and no removed ones.
    pub(super) fn set_indexed_up_to(&mut self, number: PassageNumber) -> Result<(), StorageError> {
        self.file.run_transaction(|c| {
            c.execute("UPDATE format SET last_coded_number = ?1", [number])?;
            c.execute("DELETE FROM removals", []).map(drop)
        })
    }
}

fn delete_passage(c: &Connection, tenant: TenantNumber, number: PassageNumber) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM vectors WHERE tenant = ?1 AND number = ?2")?
        .execute([tenant, number])?;
    c.prepare_cached("DELETE FROM passages WHERE number = ?1")?
        .execute([number])?;
    c.prepare_cached("INSERT INTO removals VALUES (?1, ?2)")?
        .execute([number, tenant])
        .map(drop)
}

fn add_to_passage_count(c: &Connection, tenant: TenantNumber, change: i64) -> rusqlite::Result<()> {
    c.prepare_cached("UPDATE tenants SET passages = passages + ?2 WHERE number = ?1")?
        .execute([tenant, change])
        .map(drop)
}
