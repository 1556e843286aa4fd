//! Passages in an in-process Qdrant shard: `<data>/vectors`.
//!
//! A search is two: the nearest by embedding, and the best by words (BM25). Their two rankings are joined by reciprocal rank
//! fusion (Cormack, Clarke, Büttcher, SIGIR 2009; k = 2, Qdrant's value), which needs no common scale of scores. Word
//! frequencies are those of the whole shard: another tenant's passages may shift a rank, and are never returned.
//!
//! One thread changes the shard, change by change; searches run beside it. A change can be found when its call returns, and
//! survives the process from the next flush on. What was removed is gone from the files at most a minute later
//! ([`EdgeVectors::compact`]), with 50,000 passages: the thread writes them anew after [`COMPACT_DELAY`].
//!
//! There is no vector graph: every search is an exact scan of what its filter leaves (see `vectors/shard.rs` for why). With
//! `benches/storage.rs` on two busy cores, a tenant with 1,000 passages waits under 1 ms whatever lies beside it, one with
//! 10,000 a millisecond, one with 100,000 some 30 ms. The lists of words are the limit: they are changed in place and rebuilt
//! when the shard is opened, so with 100,000 passages adding one costs 3 ms and opening 6 s.

mod matches;
mod passage;
mod shard;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use qdrant_edge::{
    Filter, Fusion, NamedQuery, PointInsertOperations, PointOperations, Prefetch, QueryEnum, QueryRequest,
    ScoringQuery, UpdateOperation, VectorInternal, WithPayloadInterface, WithVector,
};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use weir_core::ports::VectorStore;
use weir_core::search::{Hit, Point, Query};
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use self::matches::QueryWords;
use self::passage::{
    DENSE, NO_PAGE, SPARSE, check_dense, hit, of_document, of_tenant, page, page_of_each, searched, stored,
};
use self::shard::{INDEX, Shard};
use self::words::Words;
use crate::folder::FolderLock;
use crate::worker::Worker;

/// Most hits a search answers with.
pub const MAX_HITS: usize = 1000;
/// Points in one change of the shard; bounds an entry of its log.
const POINTS_PER_CHANGE: usize = 128;
/// Searches at once; more wait.
const SEARCHES: usize = 8;
/// Candidates of each ranking: at least this many, so that a passage good in both is seen in both.
const CANDIDATES: usize = 64;
/// Reciprocal rank fusion's constant.
const RRF_K: usize = 2;

/// How long the shard waits after a removal before it is compacted, so that removals that come together cost once.
const COMPACT_DELAY: Duration = Duration::from_secs(20);

/// A [`VectorStore`] in this process.
pub struct EdgeVectors {
    index: Mutex<Option<Arc<Index>>>,
    writer: Arc<Worker<Arc<Index>>>,
    searches: Arc<Semaphore>,
    /// Notified when there is something to compact.
    removed: Arc<Notify>,
    compacting: JoinHandle<()>,
}

struct Index {
    shard: Shard,
    words: Words,
    _lock: Arc<FolderLock>,
}

impl EdgeVectors {
    /// Opens `<data>/vectors` for embeddings of `dimensions` components by `model`, making it if need be. Blocks on the disk.
    pub(crate) fn open(
        data: &Path,
        model: &str,
        dimensions: usize,
        lock: Arc<FolderLock>,
    ) -> Result<Self, StorageError> {
        Self::over(Shard::open(data, model, dimensions)?, lock)
    }

    /// Opens `<data>/vectors` for whatever embeddings it was made; `None` if it was never made. Blocks on the disk.
    pub(crate) fn open_again(data: &Path, lock: Arc<FolderLock>) -> Result<Option<Self>, StorageError> {
        match Shard::open_again(data)? {
            Some(shard) => Self::over(shard, lock).map(Some),
            None => Ok(None),
        }
    }

    fn over(shard: Shard, lock: Arc<FolderLock>) -> Result<Self, StorageError> {
        let words = Words::new().map_err(failed)?;
        let index = Arc::new(Index {
            shard,
            words,
            _lock: lock,
        });
        let removed = Arc::new(Notify::new());
        if index.shard.has_removed() {
            removed.notify_one();
        }
        let writer = Arc::new(Worker::start("weir-vectors", INDEX.into(), Arc::clone(&index))?);
        Ok(Self {
            compacting: tokio::spawn(compact_after_removals(
                Arc::clone(&removed),
                Arc::downgrade(&writer),
            )),
            writer,
            index: Mutex::new(Some(index)),
            searches: Arc::new(Semaphore::new(SEARCHES)),
            removed,
        })
    }

    /// The embedding model and the length of its vectors.
    pub(crate) fn made_for(&self) -> Result<(String, usize), StorageError> {
        let index = self.open_index()?;
        let made_for = index.shard.made_for();
        Ok((made_for.model.clone(), made_for.dimensions))
    }

    /// Writes the files anew without what has been removed, if something has been. Changes wait meanwhile, searches do not.
    pub async fn compact(&self) -> Result<(), StorageError> {
        self.writer.call(|index| index.shard.compact()).await
    }

    /// Flushes and closes; every later call fails. Returns when another process can open the shard.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.compacting.abort();
        let flushed = self.flush().await;
        // With every place taken, no search holds the index any more.
        let searches = u32::try_from(SEARCHES).unwrap_or(u32::MAX);
        let _places = self.searches.acquire_many(searches).await;
        drop(self.index.lock().take());
        self.writer.close().await;
        flushed
    }

    async fn remove_all(&self, filter: Filter, compact_soon: bool) -> Result<(), StorageError> {
        let removed = self.writer.call(move |index| index.shard.remove(filter));
        if removed.await? && compact_soon {
            self.removed.notify_one();
        }
        Ok(())
    }

    fn open_index(&self) -> Result<Arc<Index>, StorageError> {
        let index = self.index.lock().clone();
        index.ok_or_else(|| failed("is closed"))
    }

    /// Reads beside the writer.
    async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let place = Arc::clone(&self.searches).acquire_owned().await;
        let place = place.map_err(failed)?;
        let index = self.open_index()?;
        tokio::task::spawn_blocking(move || {
            let answer = work(&index);
            // In this order, also if the caller has gone: whoever gets all places finds nobody using the index.
            drop(index);
            drop(place);
            answer
        })
        .await
        .map_err(failed)?
    }
}

/// Compacts some time after each removal, until the index is closed.
async fn compact_after_removals(removed: Arc<Notify>, writer: Weak<Worker<Arc<Index>>>) {
    loop {
        removed.notified().await;
        sleep(COMPACT_DELAY).await;
        let Some(writer) = writer.upgrade() else { return };
        if let Err(error) = writer.call(|index| index.shard.compact()).await {
            tracing::error!(%error, "what was removed from the index is still in its files");
            removed.notify_one();
        }
    }
}

impl Drop for EdgeVectors {
    fn drop(&mut self) {
        self.compacting.abort();
    }
}

#[async_trait]
impl VectorStore for EdgeVectors {
    async fn upsert(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<Point>,
    ) -> Result<(), StorageError> {
        let (tenant, collection) = (tenant.clone(), collection.to_owned());
        self.writer
            .call(move |index| index.upsert(&tenant, &collection, points))
            .await
    }

    async fn remove(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        // Pages that are replaced are compacted with the next document that is removed, or when the shard is closed.
        self.remove_all(of_document(tenant, document, pages), pages.is_none())
            .await
    }

    async fn remove_summaries(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        self.remove_all(of_document(tenant, document, Some(&[NO_PAGE])), false)
            .await
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_all(of_tenant(tenant), true).await
    }

    async fn search(&self, tenant: &TenantId, query: &Query) -> Result<Vec<Hit>, StorageError> {
        let (tenant, query) = (tenant.clone(), query.clone());
        self.read(move |index| index.search(&tenant, &query)).await
    }

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let request = page_of_each(tenant, document);
        self.read(move |index| {
            let (passages, _) = index.shard.ask(|edge| edge.scroll(request))?;
            let mut pages = BTreeMap::new();
            for number in passages
                .iter()
                .filter_map(|passage| page(passage.payload.as_ref()))
            {
                *pages.entry(number).or_default() += 1;
            }
            Ok(pages.into_iter().collect())
        })
        .await
    }

    async fn flush(&self) -> Result<(), StorageError> {
        self.writer.call(|index| index.shard.flush()).await
    }
}

fn failed(reason: impl std::fmt::Display) -> StorageError {
    StorageError::Failed {
        what: INDEX.into(),
        reason: reason.to_string(),
    }
}

impl Index {
    fn upsert(&self, tenant: &TenantId, collection: &str, points: Vec<Point>) -> Result<(), StorageError> {
        // All are checked before the first is written.
        let mut bytes = 0;
        let dimensions = self.shard.made_for().dimensions;
        let mut points = points
            .into_iter()
            .map(|point| {
                bytes += point.text.len() + 4 * point.dense.len();
                stored(tenant, collection, point, dimensions, &self.words)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        while !points.is_empty() {
            let rest = points.split_off(points.len().min(POINTS_PER_CHANGE));
            let list = PointInsertOperations::PointsList(std::mem::replace(&mut points, rest));
            let change = UpdateOperation::PointOperation(PointOperations::UpsertPoints(list));
            self.shard.update(change, bytes)?;
        }
        Ok(())
    }

    fn search(&self, tenant: &TenantId, query: &Query) -> Result<Vec<Hit>, StorageError> {
        check_dense(&query.dense, self.shard.made_for().dimensions).map_err(|reason| {
            StorageError::Failed {
                what: "searching".into(),
                reason,
            }
        })?;
        let limit = query.top_k.clamp(1, MAX_HITS);
        let filter = searched(tenant, query);
        let ranking = |vector, name: &str| Prefetch {
            prefetches: Vec::new(),
            query: Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery::new(
                vector, name,
            )))),
            limit: (2 * limit).max(CANDIDATES),
            params: None,
            filter: Some(filter.clone()),
            score_threshold: None,
        };
        let mut prefetches = vec![ranking(VectorInternal::Dense(query.dense.clone()), DENSE)];
        let sparse = self.words.of_query(&query.text);
        if !sparse.indices.is_empty() {
            prefetches.push(ranking(VectorInternal::Sparse(sparse), SPARSE));
        }
        let request = QueryRequest {
            prefetches,
            query: Some(ScoringQuery::Fusion(Fusion::Rrf {
                k: RRF_K,
                weights: None,
            })),
            filter: Some(filter),
            score_threshold: None,
            limit,
            offset: 0,
            params: None,
            with_vector: WithVector::Selector(vec![DENSE.to_owned()]),
            with_payload: WithPayloadInterface::Bool(true),
        };
        let mut words = QueryWords::new(&self.words, &query.text);
        let mut hits = self
            .shard
            .ask(|edge| edge.query(request))?
            .into_iter()
            .map(|point| hit(point, &query.dense, &mut words))
            .collect::<Result<Vec<_>, _>>()?;
        // Equal scores are common in rank fusion; their order is that of the documents.
        hits.sort_by(|(a, i), (b, j)| {
            b.score
                .total_cmp(&a.score)
                .then_with(|| (&a.document, a.page, i).cmp(&(&b.document, b.page, j)))
        });
        Ok(hits.into_iter().map(|(hit, _)| hit).collect())
    }
}
