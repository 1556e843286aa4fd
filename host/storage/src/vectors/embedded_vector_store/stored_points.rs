//! Points of the index as a migration reads and writes them.

use std::collections::BTreeMap;

use weir_core::{StorageError, TenantId};

use super::EmbeddedVectorStore;
use super::passage_database::PassageNumber;
use crate::vectors::passage_payload::{PassagePoint, PointPlace};

impl EmbeddedVectorStore {
    /// Returns the number of all passages.
    pub(in crate::vectors) async fn count_points(&self) -> Result<u64, StorageError> {
        self.run_read_on_index(|index| index.read(|database| database.count_passages()))
            .await
    }

    /// Returns at most `limit` points above a number, and the number of the last.
    pub(in crate::vectors) async fn list_points_after(
        &self,
        number: PassageNumber,
        limit: u32,
    ) -> Result<(Vec<PassagePoint>, Option<PassageNumber>), StorageError> {
        let points = self
            .run_read_on_index(move |index| index.read(|database| database.list_points_after(number, limit)))
            .await?;
        let last = points.last().map(|(number, _)| *number);
        Ok((points.into_iter().map(|(_, point)| point).collect(), last))
    }

    /// Returns the points at these places, as far as they are stored.
    pub(in crate::vectors) async fn find_points(
        &self,
        places: Vec<PointPlace>,
    ) -> Result<Vec<PassagePoint>, StorageError> {
        self.run_read_on_index(move |index| {
            let mut points = Vec::with_capacity(places.len());
            for place in places {
                if let Some(tenant) = index.find_tenant(&place.tenant) {
                    points.extend(index.read(|database| database.find_point(tenant.number, &place))?);
                }
            }
            Ok(points)
        })
        .await
    }

    /// Writes points of any tenants.
    pub(in crate::vectors) async fn write_points(
        &self,
        points: Vec<PassagePoint>,
    ) -> Result<(), StorageError> {
        let mut by_tenant: BTreeMap<TenantId, Vec<PassagePoint>> = BTreeMap::new();
        for point in points {
            by_tenant.entry(point.tenant()?).or_default().push(point);
        }
        self.writer
            .run(move |writer| {
                let mut groups = by_tenant.iter();
                groups.try_for_each(|(tenant, points)| writer.upsert_passages(tenant, points))
            })
            .await
    }
}
