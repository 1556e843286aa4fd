//! Copies the points of one index to another and compares them: the embedded index of a data folder, and the collection on a Qdrant server.

use std::collections::{HashMap, HashSet};

use qdrant_client::qdrant::{
    CountPointsBuilder, GetPointsBuilder, PointId as ServerPointId, ScrollPointsBuilder, VectorsSelector,
};
use uuid::Uuid;
use weir_core::StorageError;
use weir_core::ports::VectorStore as _;

use super::passage_payload::{PassagePoint, damaged_point};
use super::qdrant_errors::to_storage_error;
use super::qdrant_points::{DENSE_VECTOR, from_server_point, to_server_point};
use super::{EmbeddedVectorStore, QdrantVectorStore};
use crate::migration_progress::{
    ContentDigest, MigratedContent, MigrationStep, ProgressCounter, ReportProgress, hash_parts,
};

/// Points of a batch.
const BATCH_POINTS: u32 = 256;
/// Difference by which a component of a vector may have changed. An index brings vectors to unit length, and the embedded one stores
/// 16-bit numbers.
const MAX_VECTOR_DIFFERENCE: f32 = 5e-4;

/// Where points are.
pub(crate) enum StoredPoints {
    Embedded(EmbeddedVectorStore),
    Server(QdrantVectorStore),
}

/// The first point of a batch: the one after a number, or the one with an id.
#[derive(Clone, Copy)]
enum BatchStart {
    First,
    AfterNumber(i64),
    Id(Uuid),
}

impl StoredPoints {
    pub(crate) async fn count(&self) -> Result<u64, StorageError> {
        match self {
            Self::Embedded(index) => index.count_points().await,
            Self::Server(server) => {
                let request = CountPointsBuilder::new(&server.collection).exact(true);
                let counted = server.client.count(request).await.map_err(to_storage_error)?;
                Ok(counted.result.unwrap_or_default().count)
            }
        }
    }

    /// Returns a batch of points, and the start of the next batch; `None` after the last.
    async fn read_batch(
        &self,
        start: BatchStart,
    ) -> Result<(Vec<PassagePoint>, Option<BatchStart>), StorageError> {
        match self {
            Self::Embedded(index) => {
                let after = match start {
                    BatchStart::AfterNumber(number) => number,
                    BatchStart::First | BatchStart::Id(_) => 0,
                };
                let (points, last) = index.list_points_after(after, BATCH_POINTS).await?;
                Ok((points, last.map(BatchStart::AfterNumber)))
            }
            Self::Server(server) => {
                let mut request = ScrollPointsBuilder::new(&server.collection)
                    .limit(BATCH_POINTS)
                    .with_payload(true)
                    .with_vectors(dense_vector());
                if let BatchStart::Id(id) = start {
                    request = request.offset(ServerPointId::from(id.to_string()));
                }
                let read = server.client.scroll(request).await.map_err(to_storage_error)?;
                let points = read
                    .result
                    .into_iter()
                    .map(from_server_point)
                    .collect::<Result<_, _>>()?;
                let next = read.next_page_offset.map(parse_server_id).transpose()?;
                Ok((points, next.map(BatchStart::Id)))
            }
        }
    }

    /// Returns the ids of those of the points that are stored.
    async fn find_stored_ids(&self, points: &[PassagePoint]) -> Result<HashSet<Uuid>, StorageError> {
        match self {
            Self::Embedded(_) => {
                let stored = self.find_points(points).await?;
                Ok(stored.into_iter().map(|point| point.id).collect())
            }
            Self::Server(server) => {
                let request = GetPointsBuilder::new(&server.collection, to_server_ids(points))
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

    /// Returns the copies of the points, as far as they are stored.
    async fn find_points(&self, points: &[PassagePoint]) -> Result<Vec<PassagePoint>, StorageError> {
        match self {
            Self::Embedded(index) => {
                let places = points.iter().map(PassagePoint::place);
                index.find_points(places.collect::<Result<_, _>>()?).await
            }
            Self::Server(server) => {
                let request = GetPointsBuilder::new(&server.collection, to_server_ids(points))
                    .with_payload(true)
                    .with_vectors(dense_vector());
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
            Self::Embedded(index) => index.write_points(points).await,
            Self::Server(server) => {
                let mut converted = Vec::with_capacity(points.len());
                for point in points {
                    converted.push(to_server_point(&point.tenant()?, point, &server.splitter)?);
                }
                server.upsert_server_points(converted).await
            }
        }
    }

    async fn flush(&self) -> Result<(), StorageError> {
        match self {
            Self::Embedded(index) => index.flush_points().await,
            Self::Server(server) => server.flush_points().await,
        }
    }

    /// Flushes the points. Later calls fail.
    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        match self {
            Self::Embedded(index) => index.close().await,
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
    let (mut batch, mut next) = source.read_batch(BatchStart::First).await?;
    loop {
        let count = batch.len();
        let read_next = async {
            match next {
                Some(next) => source.read_batch(next).await.map(Some),
                None => Ok(None),
            }
        };
        let write = async {
            let mut points = batch;
            if is_resumed {
                let stored = target.find_stored_ids(&points).await?;
                points.retain(|point| !stored.contains(&point.id));
            }
            match points.is_empty() {
                true => Ok(()),
                false => target.write(points).await,
            }
        };
        let (written, read) = tokio::join!(write, read_next);
        written?;
        progress.add(count);
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
    let (mut digest, mut next) = (ContentDigest::default(), Some(BatchStart::First));
    while let Some(start) = next {
        let (points, after) = source.read_batch(start).await?;
        next = after;
        let copies = target.find_points(&points).await?;
        let mut copies: HashMap<Uuid, PassagePoint> =
            copies.into_iter().map(|point| (point.id, point)).collect();
        for point in &points {
            let copy = copies
                .remove(&point.id)
                .ok_or_else(|| different(&format!("point {} is not in the target", point.id)))?;
            let hash = hash_point(point)?;
            if hash != hash_point(&copy)? || !are_close(&point.dense_vector, &copy.dense_vector) {
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

/// Hashes the id and the payload.
fn hash_point(point: &PassagePoint) -> Result<[u8; 32], StorageError> {
    let payload = serde_json::to_vec(&point.payload).map_err(|error| damaged_point(point.id, error))?;
    Ok(hash_parts([point.id.as_bytes().as_slice(), &payload]))
}

fn are_close(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| (a - b).abs() <= MAX_VECTOR_DIFFERENCE)
}

/// Selects the vector of the embedding. The words of a point are computed from its text.
fn dense_vector() -> VectorsSelector {
    VectorsSelector {
        names: vec![DENSE_VECTOR.to_owned()],
    }
}

fn to_server_ids(points: &[PassagePoint]) -> Vec<ServerPointId> {
    let ids = points
        .iter()
        .map(|point| ServerPointId::from(point.id.to_string()));
    ids.collect()
}

fn parse_server_id(id: ServerPointId) -> Result<Uuid, StorageError> {
    use qdrant_client::qdrant::point_id::PointIdOptions;
    match id.point_id_options {
        Some(PointIdOptions::Uuid(id)) => id.parse().map_err(|_| damaged_point(&id, "its id is not a UUID")),
        _ => Err(damaged_point("without a UUID", "weir stores no such points")),
    }
}

fn different(reason: &str) -> StorageError {
    StorageError::Failed {
        what: "the comparison of the index with its copy".into(),
        reason: format!("{reason}: empty the target and start again"),
    }
}
