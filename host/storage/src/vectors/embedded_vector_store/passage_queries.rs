//! Reading passages.

use rusqlite::{OptionalExtension as _, params};
use uuid::Uuid;
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use super::half_vector::Decoder;
use super::passage_database::{PassageDatabase, PassageNumber, TenantNumber};
use crate::vectors::passage_payload::{PassagePayload, PassagePoint, PointPlace, SUMMARY_PAGE};

/// A passage that an index of words has to add.
pub(super) struct NewPassage {
    pub(super) number: PassageNumber,
    pub(super) tenant: TenantNumber,
    pub(super) payload: PassagePayload,
}

impl PassageDatabase {
    /// Returns all tenants, with the numbers of their passages.
    pub(super) fn list_tenants(&self) -> Result<Vec<(TenantId, TenantNumber, u64)>, StorageError> {
        let rows = self.file.run(|c| {
            let mut select = c.prepare("SELECT name, number, passages FROM tenants")?;
            let rows =
                select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, TenantNumber, i64)>>>()
        })?;
        rows.into_iter()
            .map(|(name, number, passages)| {
                let tenant = name.parse().map_err(|e| {
                    self.file
                        .location()
                        .damaged_error(format_args!("tenant '{name}': {e}"))
                })?;
                Ok((tenant, number, u64::try_from(passages).unwrap_or_default()))
            })
            .collect()
    }

    /// Returns the pages of a document with the numbers of their passages, without summaries.
    pub(super) fn count_passages_by_page(
        &self,
        tenant: TenantNumber,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        self.file.run(|c| {
            let mut select = c.prepare_cached(
                "SELECT page, count(*) FROM passages WHERE tenant = ?1 AND document = ?2 AND page <> ?3 GROUP BY page ORDER BY page",
            )?;
            let rows = select.query_map(params![tenant, document.as_bytes(), SUMMARY_PAGE], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            rows.collect()
        })
    }

    /// Returns the number of all passages.
    pub(super) fn count_passages(&self) -> Result<u64, StorageError> {
        let sum = "SELECT coalesce(sum(passages), 0) FROM tenants";
        self.file
            .run(|c| c.query_row(sum, [], |row| row.get::<_, i64>(0)))
            .map(|count| u64::try_from(count).unwrap_or_default())
    }

    pub(super) fn count_passages_of_tenant(&self, tenant: TenantNumber) -> Result<u64, StorageError> {
        self.file
            .run(|c| {
                let select = "SELECT passages FROM tenants WHERE number = ?1";
                c.prepare_cached(select)?
                    .query_row([tenant], |row| row.get::<_, i64>(0))
                    .optional()
            })
            .map(|count| {
                count
                    .and_then(|count| u64::try_from(count).ok())
                    .unwrap_or_default()
            })
    }

    /// Returns at most `limit` passages above a number, in the order of their numbers.
    pub(super) fn list_passages_after(
        &self,
        number: PassageNumber,
        limit: u32,
    ) -> Result<Vec<NewPassage>, StorageError> {
        let rows = self.file.run(|c| {
            let mut select = c.prepare_cached(
                "SELECT number, tenant, payload FROM passages WHERE number > ?1 ORDER BY number LIMIT ?2",
            )?;
            let rows = select.query_map(params![number, limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<(PassageNumber, TenantNumber, String)>>>()
        })?;
        rows.into_iter()
            .map(|(number, tenant, payload)| {
                Ok(NewPassage {
                    number,
                    tenant,
                    payload: self.parse_payload(number, &payload)?,
                })
            })
            .collect()
    }

    /// Returns the numbers of all passages above a number, with their tenants.
    pub(super) fn list_numbers_after(
        &self,
        number: PassageNumber,
    ) -> Result<Vec<(PassageNumber, TenantNumber)>, StorageError> {
        self.file.run(|c| {
            let mut select = c.prepare_cached("SELECT number, tenant FROM passages WHERE number > ?1")?;
            let rows = select.query_map([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// Returns at most `limit` points above a number, in the order of their numbers.
    pub(super) fn list_points_after(
        &self,
        number: PassageNumber,
        limit: u32,
    ) -> Result<Vec<(PassageNumber, PassagePoint)>, StorageError> {
        self.list_points("p.number > ?1 ORDER BY p.number LIMIT ?2", params![number, limit])
    }

    /// Returns the point at a place; `None` if it is not stored.
    pub(super) fn find_point(
        &self,
        tenant: TenantNumber,
        place: &PointPlace,
    ) -> Result<Option<PassagePoint>, StorageError> {
        let found = self.list_points(
            "p.tenant = ?1 AND document = ?2 AND page = ?3 AND passage = ?4 AND id = ?5",
            params![
                tenant,
                place.document.as_bytes(),
                place.page,
                place.passage,
                place.id.as_bytes()
            ],
        )?;
        Ok(found.into_iter().next().map(|(_, point)| point))
    }

    fn list_points(
        &self,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<(PassageNumber, PassagePoint)>, StorageError> {
        type Row = (PassageNumber, [u8; 16], String, Vec<u8>);
        let rows = self.file.run(|c| {
            let sql = format!(
                "SELECT p.number, id, payload, vector FROM passages p JOIN vectors v ON v.tenant = p.tenant AND v.number = p.number \
                 WHERE {condition}"
            );
            let mut select = c.prepare_cached(&sql)?;
            let rows = select.query_map(values, |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<Row>>>()
        })?;
        let mut decoder = Decoder::default();
        rows.into_iter()
            .map(|(number, id, payload, vector)| {
                let point = PassagePoint {
                    id: Uuid::from_bytes(id),
                    dense_vector: decoder.decode(&vector).to_vec(),
                    payload: self.parse_payload(number, &payload)?,
                };
                Ok((number, point))
            })
            .collect()
    }

    /// Returns the numbers of removed passages that the derived indexes may still have, with their tenants.
    pub(super) fn list_removals(&self) -> Result<Vec<(PassageNumber, TenantNumber)>, StorageError> {
        self.file.run(|c| {
            let mut select = c.prepare_cached("SELECT number, tenant FROM removals")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// Returns the payload of a passage; `None` if it was removed meanwhile.
    pub(super) fn find_payload(&self, number: PassageNumber) -> Result<Option<PassagePayload>, StorageError> {
        let payload: Option<String> = self.file.run(|c| {
            c.prepare_cached("SELECT payload FROM passages WHERE number = ?1")?
                .query_row([number], |row| row.get(0))
                .optional()
        })?;
        payload
            .map(|payload| self.parse_payload(number, &payload))
            .transpose()
    }

    /// Calls `work` with the vectors of the given passages of a tenant that are stored.
    pub(super) fn read_vectors(
        &self,
        tenant: TenantNumber,
        numbers: &[PassageNumber],
        mut work: impl FnMut(PassageNumber, &[f32]),
    ) -> Result<(), StorageError> {
        let mut decoder = Decoder::default();
        self.file.run(|c| {
            let mut select =
                c.prepare_cached("SELECT vector FROM vectors WHERE tenant = ?1 AND number = ?2")?;
            for number in numbers {
                let mut rows = select.query(params![tenant, number])?;
                if let Some(row) = rows.next()? {
                    work(*number, decoder.decode(row.get_ref(0)?.as_blob()?));
                }
            }
            Ok(())
        })
    }

    /// Calls `work` with the vectors of all passages of a tenant, in the order of their numbers.
    pub(super) fn read_all_vectors(
        &self,
        tenant: TenantNumber,
        mut work: impl FnMut(PassageNumber, &[f32]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut decoder = Decoder::default();
        let mut failed = None;
        self.file.run(|c| {
            let mut select = c.prepare_cached("SELECT number, vector FROM vectors WHERE tenant = ?1")?;
            let mut rows = select.query([tenant])?;
            while let Some(row) = rows.next()? {
                let vector = decoder.decode(row.get_ref(1)?.as_blob()?);
                if let Err(error) = work(row.get(0)?, vector) {
                    failed = Some(error);
                    break;
                }
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn parse_payload(&self, number: PassageNumber, payload: &str) -> Result<PassagePayload, StorageError> {
        serde_json::from_str(payload).map_err(|error| {
            self.file
                .location()
                .damaged_error(format_args!("passage {number}: {error}"))
        })
    }
}
