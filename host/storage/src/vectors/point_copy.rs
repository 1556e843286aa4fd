//! Copies the points of one index to another and compares them: the shard in a data folder, and the collection on a Qdrant server.

use std::collections::{HashMap, HashSet};

use qdrant_client::qdrant::{
    CountPointsBuilder, GetPointsBuilder, PointId as ServerPointId, ScrollPointsBuilder, UpsertPointsBuilder,
};
use qdrant_edge::{
    CountRequest, PointId, PointInsertOperations, PointOperations, ScrollRequest, UpdateOperation,
    WithPayloadInterface, WithVector,
};
use serde_json::Value;
use uuid::Uuid;
use weir_core::StorageError;
use weir_core::ports::VectorStore as _;

use super::passage_payload::{PassagePoint, split_into_updates};
use super::qdrant_errors::to_storage_error;
use super::qdrant_points::{from_server_point, to_server_point};
use super::shard_points::{from_shard_point, to_shard_point};
use super::{EdgeVectorStore, QdrantVectorStore};
use crate::migration_progress::{
    ContentDigest, MigratedContent, MigrationStep, ProgressCounter, ReportProgress, hash_parts,
};

/// Points of a batch.
const BATCH_POINTS: usize = 256;
/// Points that are written to the shard between two flushes, which limits its log.
const POINTS_PER_FLUSH: usize = 4096;
/// Difference by which a component of a dense vector may have changed. An index brings vectors to unit length.
const MAX_VECTOR_DIFFERENCE: f32 = 1e-5;

/// Where points are.
pub(crate) enum StoredPoints {
    Shard(EdgeVectorStore),
    Server(QdrantVectorStore),
}

impl StoredPoints {
    pub(crate) async fn count(&self) -> Result<u64, StorageError> {
        match self {
            Self::Shard(shard) => {
                let request = CountRequest {
                    filter: None,
                    exact: true,
                };
                let count = shard
                    .run_read_on_index(move |index| index.shard.call_open_engine(|edge| edge.count(request)));
                Ok(count.await? as u64)
            }
            Self::Server(server) => {
                let request = CountPointsBuilder::new(&server.collection).exact(true);
                let counted = server.client.count(request).await.map_err(to_storage_error)?;
                Ok(counted.result.unwrap_or_default().count)
            }
        }
    }

    /// Returns the points from an id on, in the order of their ids, and the id of the next.
    async fn read_batch(
        &self,
        from: Option<Uuid>,
    ) -> Result<(Vec<PassagePoint>, Option<Uuid>), StorageError> {
        match self {
            Self::Shard(shard) => {
                let request = ScrollRequest {
                    offset: from.map(PointId::Uuid),
                    limit: Some(BATCH_POINTS),
                    with_payload: Some(WithPayloadInterface::Bool(true)),
                    with_vector: WithVector::Bool(true),
                    ..ScrollRequest::default()
                };
                let read = shard.run_read_on_index(move |index| {
                    index.shard.call_open_engine(|edge| edge.scroll(request))
                });
                let (records, next) = read.await?;
                let points = records
                    .into_iter()
                    .map(from_shard_point)
                    .collect::<Result<_, _>>()?;
                let next = next.map(|next| match next {
                    PointId::Uuid(id) => Ok(id),
                    PointId::NumId(number) => Err(damaged_point(&number.to_string(), "its id is not a UUID")),
                });
                Ok((points, next.transpose()?))
            }
            Self::Server(server) => {
                let mut request = ScrollPointsBuilder::new(&server.collection)
                    .limit(u32::try_from(BATCH_POINTS).unwrap_or(u32::MAX))
                    .with_payload(true)
                    .with_vectors(true);
                if let Some(from) = from {
                    request = request.offset(ServerPointId::from(from.to_string()));
                }
                let read = server.client.scroll(request).await.map_err(to_storage_error)?;
                let points = read
                    .result
                    .into_iter()
                    .map(from_server_point)
                    .collect::<Result<_, _>>()?;
                Ok((points, read.next_page_offset.map(parse_server_id).transpose()?))
            }
        }
    }

    /// Returns those of the ids that are stored.
    async fn find_stored_ids(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StorageError> {
        match self {
            Self::Shard(shard) => {
                let ids: Vec<PointId> = ids.iter().copied().map(PointId::Uuid).collect();
                let read = shard.run_read_on_index(move |index| {
                    let without = Some(WithPayloadInterface::Bool(false));
                    index
                        .shard
                        .call_open_engine(|edge| edge.retrieve(&ids, without, Some(WithVector::Bool(false))))
                });
                let stored = read.await?.into_iter();
                Ok(stored
                    .filter_map(|record| match record.id {
                        PointId::Uuid(id) => Some(id),
                        PointId::NumId(_) => None,
                    })
                    .collect())
            }
            Self::Server(server) => {
                let request = GetPointsBuilder::new(&server.collection, to_server_ids(ids))
                    .with_payload(false)
                    .with_vectors(false);
                let stored = server
                    .client
                    .get_points(request)
                    .await
                    .map_err(to_storage_error)?;
                let ids = stored.result.into_iter().filter_map(|point| point.id);
                ids.map(parse_server_id).collect()
            }
        }
    }

    /// Returns the points with these ids, as far as they are stored.
    async fn find_points(&self, ids: &[Uuid]) -> Result<Vec<PassagePoint>, StorageError> {
        match self {
            Self::Shard(shard) => {
                let ids: Vec<PointId> = ids.iter().copied().map(PointId::Uuid).collect();
                let read = shard.run_read_on_index(move |index| {
                    let with = Some(WithPayloadInterface::Bool(true));
                    index
                        .shard
                        .call_open_engine(|edge| edge.retrieve(&ids, with, Some(WithVector::Bool(true))))
                });
                read.await?.into_iter().map(from_shard_point).collect()
            }
            Self::Server(server) => {
                let request = GetPointsBuilder::new(&server.collection, to_server_ids(ids))
                    .with_payload(true)
                    .with_vectors(true);
                let stored = server
                    .client
                    .get_points(request)
                    .await
                    .map_err(to_storage_error)?;
                stored.result.into_iter().map(from_server_point).collect()
            }
        }
    }

    async fn write(&self, points: Vec<PassagePoint>) -> Result<(), StorageError> {
        match self {
            Self::Shard(shard) => {
                let points: Vec<_> = points.into_iter().map(to_shard_point).collect();
                shard
                    .writer
                    .run(move |index| {
                        for update in split_into_updates(points) {
                            let bytes = update.len() * 4 * index.shard.metadata().dimensions;
                            let list = PointInsertOperations::PointsList(update);
                            let change = UpdateOperation::PointOperation(PointOperations::UpsertPoints(list));
                            index.shard.apply_update(change, bytes as u64)?;
                        }
                        Ok(())
                    })
                    .await
            }
            Self::Server(server) => {
                let mut converted = Vec::with_capacity(points.len());
                for point in points {
                    let tenant = point
                        .tenant()
                        .ok_or_else(|| damaged_point(&point.id.to_string(), "its payload names no tenant"))?;
                    converted.push(to_server_point(&tenant, point)?);
                }
                for update in split_into_updates(converted) {
                    let request = UpsertPointsBuilder::new(&server.collection, update).wait(true);
                    server
                        .client
                        .upsert_points(request)
                        .await
                        .map_err(to_storage_error)?;
                }
                Ok(())
            }
        }
    }

    async fn flush(&self) -> Result<(), StorageError> {
        match self {
            Self::Shard(shard) => shard.flush_points().await,
            Self::Server(server) => server.flush_points().await,
        }
    }

    /// Flushes the points. Later calls fail.
    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        match self {
            Self::Shard(shard) => shard.close().await,
            Self::Server(_) => Ok(()),
        }
    }
}

/// Copies all points that `target` does not have. They are durable when the call returns.
pub(crate) async fn copy_points(
    source: &StoredPoints,
    target: &StoredPoints,
    is_resumed: bool,
    report: &ReportProgress,
) -> Result<(), StorageError> {
    let total = Some(source.count().await?);
    let mut progress = ProgressCounter::start(report, MigrationStep::Copy, "points", total);
    let (mut batch, mut next) = source.read_batch(None).await?;
    let mut unflushed = 0;
    loop {
        let count = batch.len();
        let read_next = async {
            match next {
                Some(_) => source.read_batch(next).await.map(Some),
                None => Ok(None),
            }
        };
        let write = async {
            let mut points = batch;
            if is_resumed {
                let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
                let stored = target.find_stored_ids(&ids).await?;
                points.retain(|point| !stored.contains(&point.id));
            }
            unflushed += points.len();
            match points.is_empty() {
                true => Ok(()),
                false => target.write(points).await,
            }
        };
        let (written, read) = tokio::join!(write, read_next);
        written?;
        progress.add(count);
        if unflushed >= POINTS_PER_FLUSH {
            target.flush().await?;
            unflushed = 0;
        }
        match read? {
            Some((following, after)) => (batch, next) = (following, after),
            None => return target.flush().await,
        }
    }
}

/// Compares all points of both sides: number, payloads and vectors.
pub(crate) async fn verify_points(
    source: &StoredPoints,
    target: &StoredPoints,
    report: &ReportProgress,
) -> Result<MigratedContent, StorageError> {
    let total = source.count().await?;
    let mut progress = ProgressCounter::start(report, MigrationStep::Verify, "points", Some(total));
    let (mut digest, mut next, mut is_first) = (ContentDigest::default(), None, true);
    while is_first || next.is_some() {
        is_first = false;
        let (points, after) = source.read_batch(next).await?;
        next = after;
        let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
        let copies = target.find_points(&ids).await?;
        let mut copies: HashMap<Uuid, PassagePoint> =
            copies.into_iter().map(|point| (point.id, point)).collect();
        for point in &points {
            let copy = copies
                .remove(&point.id)
                .ok_or_else(|| different(&format!("point {} is not in the target", point.id)))?;
            let hash = hash_point(point);
            if hash != hash_point(&copy) || !are_close(&point.dense_vector, &copy.dense_vector) {
                return Err(different(&format!(
                    "point {} is different in the target",
                    point.id
                )));
            }
            digest.add_item(hash, 0);
        }
        progress.add(points.len());
    }
    let copies = target.count().await?;
    if digest.count != copies || digest.count != total {
        return Err(different(&format!(
            "the source has {total} points, and the target {copies}"
        )));
    }
    Ok(MigratedContent {
        store: "vectors".into(),
        name: "points".into(),
        count: digest.count,
        bytes: None,
        digest: Some(digest.to_hex()),
    })
}

/// Hashes the id, the payload and the sparse vector.
fn hash_point(point: &PassagePoint) -> [u8; 32] {
    let mut sparse: Vec<(u32, u32)> = point
        .sparse_vector
        .indices
        .iter()
        .copied()
        .zip(point.sparse_vector.values.iter().map(|value| value.to_bits()))
        .collect();
    sparse.sort_unstable();
    let sparse: Vec<u8> = sparse
        .into_iter()
        .flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()])
        .flatten()
        .collect();
    let mut payload = String::new();
    write_sorted_json(&Value::Object(point.payload.clone()), &mut payload);
    hash_parts([point.id.as_bytes().as_slice(), payload.as_bytes(), &sparse])
}

/// Writes JSON with the fields of each object in the order of their names.
fn write_sorted_json(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in fields {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_sorted_json(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_sorted_json(item, out);
                out.push(',');
            }
            out.push(']');
        }
        value => out.push_str(&value.to_string()),
    }
}

fn are_close(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| (a - b).abs() <= MAX_VECTOR_DIFFERENCE)
}

fn to_server_ids(ids: &[Uuid]) -> Vec<ServerPointId> {
    ids.iter().map(|id| ServerPointId::from(id.to_string())).collect()
}

fn parse_server_id(id: ServerPointId) -> Result<Uuid, StorageError> {
    use qdrant_client::qdrant::point_id::PointIdOptions;
    match id.point_id_options {
        Some(PointIdOptions::Uuid(id)) => id.parse().map_err(|_| damaged_point(&id, "its id is not a UUID")),
        _ => Err(damaged_point("without a UUID", "weir stores no such points")),
    }
}

fn damaged_point(id: &str, reason: &str) -> StorageError {
    StorageError::Damaged {
        what: format!("point {id} of the index"),
        reason: reason.to_owned(),
    }
}

fn different(reason: &str) -> StorageError {
    StorageError::Failed {
        what: "the comparison of the index with its copy".into(),
        reason: format!("{reason}: empty the target and start again"),
    }
}
