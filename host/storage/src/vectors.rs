//! Passages in an in-process Qdrant shard: `<data>/vectors`.
//!
//! A search combines two rankings: by embedding and by words (BM25). Reciprocal rank fusion joins them (Cormack, Clarke, Büttcher,
//! SIGIR 2009; k = 2, Qdrant's value), which needs no common scale of scores. Word frequencies are those of the whole shard, so passages
//! of another tenant may change a rank. They are never returned.
//!
//! One thread applies all changes of the shard, and searches run concurrently. A change is visible to searches when its call returns,
//! and durable after the next flush. Removed passages are gone from the files at most a minute later, for 50,000 passages:
//! the thread rewrites the files ([`EdgeVectorStore::compact`]) after [`COMPACT_DELAY`].
//!
//! There is no vector graph: every search is an exact scan of the passages that match its filter (`vectors/open_vector_index.rs` says why). With
//! `benches/storage.rs` on two busy cores, a search takes less than 1 ms for a tenant with 1,000 passages, whatever other tenants have,
//! 1 ms with 10,000 passages, and about 30 ms with 100,000. The word lists are the limit: they are changed in place and rebuilt when the
//! shard is opened. With 100,000 passages, adding one takes 3 ms and opening takes 6 s.

mod bm25;
mod hybrid_ranking;
mod open_vector_index;
mod passage_filter;
mod passage_payload;
mod point_copy;
mod qdrant_errors;
mod qdrant_points;
mod qdrant_vector_store;
mod query_word_matcher;
mod shard_points;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use qdrant_edge::{
    Fusion, NamedQuery, PointInsertOperations, PointOperations, Prefetch, QueryEnum, QueryRequest,
    ScoringQuery, UpdateOperation, VectorInternal, WithPayloadInterface, WithVector,
};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use weir_core::ports::VectorStore;
use weir_core::search::{IndexPoint, SearchHit, SearchQuery};
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

pub use self::hybrid_ranking::MAX_HITS;
pub(crate) use self::point_copy::{StoredPoints, copy_points, verify_points};
pub use self::qdrant_vector_store::{QdrantConnection, QdrantVectorStore};

use self::bm25::Bm25Encoder;
use self::hybrid_ranking::{RRF_K, candidate_count, sort_hits};
use self::open_vector_index::{INDEX_NAME, OpenVectorIndex};
use self::passage_filter::PassageFilter;
use self::passage_payload::{
    DENSE_VECTOR, SPARSE_VECTOR, SUMMARY_PAGE, check_query, split_into_updates, to_passage_point,
    to_search_hit,
};
use self::query_word_matcher::QueryWordMatcher;
use self::shard_points::{
    page_number_of_payload, passage_page_numbers_request, to_found_point, to_shard_filter, to_shard_point,
};
use crate::data_folder::FolderLock;
use crate::worker_thread::WorkerThread;

/// Concurrent searches. Further searches wait.
const MAX_CONCURRENT_SEARCHES: usize = 8;

/// Time between a removal and the compaction of the shard. Removals within this time share one compaction.
const COMPACT_DELAY: Duration = Duration::from_secs(20);

/// Implements [`VectorStore`] with a shard in this process.
pub struct EdgeVectorStore {
    index: Mutex<Option<Arc<VectorIndex>>>,
    writer: Arc<WorkerThread<Arc<VectorIndex>>>,
    search_permits: Arc<Semaphore>,
    /// Notified when the shard has removed points to compact.
    removal_notify: Arc<Notify>,
    compaction_task: JoinHandle<()>,
}

struct VectorIndex {
    shard: OpenVectorIndex,
    encoder: Bm25Encoder,
    _lock: Arc<FolderLock>,
}

impl EdgeVectorStore {
    /// Opens `<data>/vectors` for vectors of length `dimensions` by the embedding model `model`. Creates it if it does not exist. Blocks
    /// on the disk.
    pub(crate) fn open_or_create(
        data: &Path,
        model: &str,
        dimensions: usize,
        lock: Arc<FolderLock>,
    ) -> Result<Self, StorageError> {
        Self::from_shard(OpenVectorIndex::open_or_create(data, model, dimensions)?, lock)
    }

    /// Returns whether a data folder has an index.
    pub(crate) fn exists_in(data: &Path) -> bool {
        OpenVectorIndex::exists_in(data)
    }

    /// Opens an existing `<data>/vectors` for the embedding model that it was made for. Returns `None` if it does not exist. Blocks on
    /// the disk.
    pub(crate) fn open_existing(data: &Path, lock: Arc<FolderLock>) -> Result<Option<Self>, StorageError> {
        match OpenVectorIndex::open_existing(data)? {
            Some(shard) => Self::from_shard(shard, lock).map(Some),
            None => Ok(None),
        }
    }

    fn from_shard(shard: OpenVectorIndex, lock: Arc<FolderLock>) -> Result<Self, StorageError> {
        let encoder = Bm25Encoder::new().map_err(index_error)?;
        let index = Arc::new(VectorIndex {
            shard,
            encoder,
            _lock: lock,
        });
        let removal_notify = Arc::new(Notify::new());
        if index.shard.needs_compaction() {
            removal_notify.notify_one();
        }
        let writer = Arc::new(WorkerThread::start(
            "weir-vectors",
            INDEX_NAME.into(),
            Arc::clone(&index),
        )?);
        Ok(Self {
            compaction_task: tokio::spawn(compact_after_removals(
                Arc::clone(&removal_notify),
                Arc::downgrade(&writer),
            )),
            writer,
            index: Mutex::new(Some(index)),
            search_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_SEARCHES)),
            removal_notify,
        })
    }

    /// Returns the embedding model and the length of its vectors.
    pub(crate) fn model_and_dimensions(&self) -> Result<(String, usize), StorageError> {
        let index = self.get_open_index()?;
        let metadata = index.shard.metadata();
        Ok((metadata.model.clone(), metadata.dimensions))
    }

    /// Rewrites the files without removed points, if there are any. Changes wait meanwhile, searches do not.
    pub async fn compact(&self) -> Result<(), StorageError> {
        self.writer.run(|index| index.shard.compact()).await
    }

    /// Flushes and closes the shard. Returns when another process can open it. Every later call fails.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.compaction_task.abort();
        let flushed = self.flush_points().await;
        // When all permits are acquired, no search uses the index.
        let searches = u32::try_from(MAX_CONCURRENT_SEARCHES).unwrap_or(u32::MAX);
        let _permits = self.search_permits.acquire_many(searches).await;
        drop(self.index.lock().take());
        self.writer.close().await;
        flushed
    }

    async fn remove_points_matching_filter(
        &self,
        filter: PassageFilter,
        compact_soon: bool,
    ) -> Result<(), StorageError> {
        let removed = self
            .writer
            .run(move |index| index.shard.remove_points(to_shard_filter(filter)));
        if removed.await? && compact_soon {
            self.removal_notify.notify_one();
        }
        Ok(())
    }

    fn get_open_index(&self) -> Result<Arc<VectorIndex>, StorageError> {
        let index = self.index.lock().clone();
        index.ok_or_else(|| index_error("it is already closed"))
    }

    /// Runs `work` on a thread that may block, concurrently with changes.
    async fn run_read_on_index<R: Send + 'static>(
        &self,
        work: impl FnOnce(&VectorIndex) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let permit = Arc::clone(&self.search_permits).acquire_owned().await;
        let permit = permit.map_err(index_error)?;
        let index = self.get_open_index()?;
        tokio::task::spawn_blocking(move || {
            let result = work(&index);
            // In this order, also if the caller no longer waits: `close` acquires all permits and must find the index unused.
            drop(index);
            drop(permit);
            result
        })
        .await
        .map_err(index_error)?
    }
}

/// Compacts the shard [`COMPACT_DELAY`] after a removal, until the index is closed.
async fn compact_after_removals(removal_notify: Arc<Notify>, writer: Weak<WorkerThread<Arc<VectorIndex>>>) {
    loop {
        removal_notify.notified().await;
        sleep(COMPACT_DELAY).await;
        let Some(writer) = writer.upgrade() else { return };
        if let Err(error) = writer.run(|index| index.shard.compact()).await {
            tracing::error!(%error, "the index could not be compacted: removed passages are still in its files");
            removal_notify.notify_one();
        }
    }
}

impl Drop for EdgeVectorStore {
    fn drop(&mut self) {
        self.compaction_task.abort();
    }
}

#[async_trait]
impl VectorStore for EdgeVectorStore {
    async fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError> {
        let (tenant, collection) = (tenant.clone(), collection.to_owned());
        self.writer
            .run(move |index| index.upsert_points(&tenant, &collection, points))
            .await
    }

    async fn remove_document_or_page_points(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        // Replaced pages are compacted with the next removed document, or when the shard is closed.
        self.remove_points_matching_filter(
            PassageFilter::of_document(tenant, document, pages),
            pages.is_none(),
        )
        .await
    }

    async fn remove_document_summaries(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        self.remove_points_matching_filter(
            PassageFilter::of_document(tenant, document, Some(&[SUMMARY_PAGE])),
            false,
        )
        .await
    }

    async fn remove_tenant_points(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_points_matching_filter(PassageFilter::of_tenant(tenant), true)
            .await
    }

    async fn search_by_vector_and_words(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError> {
        let (tenant, query) = (tenant.clone(), query.clone());
        self.run_read_on_index(move |index| index.search_hybrid(&tenant, &query))
            .await
    }

    async fn count_passages_by_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let request = passage_page_numbers_request(tenant, document);
        self.run_read_on_index(move |index| {
            let (passages, _) = index.shard.call_open_engine(|edge| edge.scroll(request))?;
            let mut pages = BTreeMap::new();
            for number in passages
                .iter()
                .filter_map(|passage| page_number_of_payload(passage.payload.as_ref()))
            {
                *pages.entry(number).or_default() += 1;
            }
            Ok(pages.into_iter().collect())
        })
        .await
    }

    async fn flush_points(&self) -> Result<(), StorageError> {
        self.writer.run(|index| index.shard.flush()).await
    }
}

fn index_error(reason: impl std::fmt::Display) -> StorageError {
    StorageError::Failed {
        what: INDEX_NAME.into(),
        reason: reason.to_string(),
    }
}

impl VectorIndex {
    fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError> {
        // Check all points before the first is written.
        let mut bytes = 0;
        let dimensions = self.shard.metadata().dimensions;
        let points = points
            .into_iter()
            .map(|point| {
                bytes += point.text.len() + 4 * point.dense_vector.len();
                to_passage_point(tenant, collection, point, dimensions, &self.encoder).map(to_shard_point)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        for update in split_into_updates(points) {
            let list = PointInsertOperations::PointsList(update);
            let change = UpdateOperation::PointOperation(PointOperations::UpsertPoints(list));
            self.shard.apply_update(change, bytes)?;
        }
        Ok(())
    }

    fn search_hybrid(&self, tenant: &TenantId, query: &SearchQuery) -> Result<Vec<SearchHit>, StorageError> {
        check_query(query, self.shard.metadata().dimensions)?;
        let limit = query.top_k.clamp(1, MAX_HITS);
        let filter = to_shard_filter(PassageFilter::of_query(tenant, query));
        let ranking = |vector, name: &str| Prefetch {
            prefetches: Vec::new(),
            query: Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery::new(
                vector, name,
            )))),
            limit: candidate_count(limit),
            params: None,
            filter: Some(filter.clone()),
            score_threshold: None,
        };
        let mut prefetches = vec![ranking(
            VectorInternal::Dense(query.dense_vector.clone()),
            DENSE_VECTOR,
        )];
        let sparse = self.encoder.encode_query(&query.query_text);
        if !sparse.indices.is_empty() {
            prefetches.push(ranking(VectorInternal::Sparse(sparse), SPARSE_VECTOR));
        }
        let request = QueryRequest {
            prefetches,
            query: Some(ScoringQuery::Fusion(Fusion::Rrf {
                k: RRF_K as usize,
                weights: None,
            })),
            filter: Some(filter),
            score_threshold: None,
            limit,
            offset: 0,
            params: None,
            with_vector: WithVector::Selector(vec![DENSE_VECTOR.to_owned()]),
            with_payload: WithPayloadInterface::Bool(true),
        };
        let mut matcher = QueryWordMatcher::new(&self.encoder, &query.query_text);
        let hits = self
            .shard
            .call_open_engine(|edge| edge.query(request))?
            .into_iter()
            .map(|point| to_search_hit(to_found_point(point), &query.dense_vector, &mut matcher))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(sort_hits(hits))
    }
}
