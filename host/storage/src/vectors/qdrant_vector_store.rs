//! Passages on a Qdrant server, over gRPC.
//!
//! The points of all tenants that have vectors of one embedding model are in one collection, as Qdrant advises: a payload index marked as
//! the tenant's (`is_tenant`) stores the points of a tenant together, and the HNSW graph links points of one tenant only
//! (`m = 0, payload_m = 16`). Payload, point ids, word splitting and ranking are the same as in the embedded index
//! (`passage_payload.rs`), so the same query has the same hits. Every query and deletion is filtered by the tenant. Word frequencies are
//! those of the whole collection.
//!
//! Every change waits until the server has applied it (`wait = true`). A server with replicas that does not wait can lose changes of a
//! replica without an error. The server writes each change to its log before it responds, so a change survives the end of the server's
//! process.

use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::Qdrant;
use qdrant_client::qdrant::{
    CollectionInfo, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, DeletePointsBuilder,
    Distance, FacetCountsBuilder, FieldType, HnswConfigDiffBuilder, IntegerIndexParamsBuilder,
    KeywordIndexParamsBuilder, Modifier, PointStruct, PrefetchQueryBuilder, Query, QueryPointsBuilder,
    RrfBuilder, SparseVectorParamsBuilder, SparseVectorsConfigBuilder, UpsertPointsBuilder, VectorInput,
    VectorParamsBuilder, VectorsConfigBuilder, VectorsSelector, facet_value::Variant,
    payload_index_params::IndexParams, vectors_config,
};
use weir_core::ports::VectorStore;
use weir_core::search::{IndexPoint, SearchHit, SearchQuery};
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use super::hybrid_ranking::{MAX_HITS, RRF_K, candidate_count, sort_hits};
use super::passage_filter::PassageFilter;
use super::passage_payload::{
    KEYS_FIELD, PAGE_FIELD, SUMMARY_PAGE, check_query, to_passage_point, to_search_hit,
};
use super::qdrant_errors::{SERVER_NAME, to_storage_error};
use super::qdrant_points::{
    DENSE_VECTOR, SPARSE_VECTOR, TENANT_FIELD, to_found_point, to_server_filter, to_server_point,
};
use super::query_word_matcher::QueryWordMatcher;
use super::sparse_vector::SparseVector;
use super::words::WordSplitter;

/// Links of a point to points of its tenant in the HNSW graph: Qdrant's value for graphs without tenants.
const LINKS_PER_POINT: u64 = 16;
/// Maximum number of pages of a document that are counted.
const MAX_COUNTED_PAGES: u64 = 1_000_000;
/// Maximum number of points in one update, which limits the size of a request.
const MAX_POINTS_PER_UPDATE: usize = 128;
/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Address of a Qdrant server, and how its collection is created.
#[derive(Clone)]
pub struct QdrantConnection {
    /// URL of the gRPC port, such as `http://qdrant:6334`. With `https` the certificate is verified.
    pub url: String,
    /// API key, if the server requires one.
    pub api_key: Option<String>,
    /// Number of copies of each point in a cluster of Qdrant servers, at least 1. Applies when the collection is created.
    pub replication_factor: u32,
}

impl std::fmt::Debug for QdrantConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The API key must not be logged.
        f.debug_struct("QdrantConnection")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Implements [`VectorStore`] with a Qdrant server.
pub struct QdrantVectorStore {
    pub(super) client: Qdrant,
    pub(super) collection: String,
    dimensions: usize,
    pub(super) splitter: WordSplitter,
}

impl QdrantVectorStore {
    /// Connects to the server and creates the collection for vectors of length `dimensions` by the embedding model `model`, if it does
    /// not exist. Returns [`StorageError::Unavailable`] if the server does not respond, and [`StorageError::Failed`] if the collection
    /// has vectors of another length.
    pub async fn connect_and_create_collection(
        connection: &QdrantConnection,
        dimensions: usize,
        model: &str,
    ) -> Result<Self, StorageError> {
        let store = Self::create_client(connection, dimensions, model)?;
        if !store.has_collection().await? {
            store.create_collection(connection.replication_factor).await?;
        }
        store.check_collection().await?;
        Ok(store)
    }

    /// Like [`connect_and_create_collection`](Self::connect_and_create_collection), but returns `None` if the collection does not exist.
    pub(crate) async fn connect_to_collection(
        connection: &QdrantConnection,
        dimensions: usize,
        model: &str,
    ) -> Result<Option<Self>, StorageError> {
        let store = Self::create_client(connection, dimensions, model)?;
        if !store.has_collection().await? {
            return Ok(None);
        }
        store.check_collection().await?;
        Ok(Some(store))
    }

    fn create_client(
        connection: &QdrantConnection,
        dimensions: usize,
        model: &str,
    ) -> Result<Self, StorageError> {
        let client = Qdrant::from_url(&connection.url)
            .api_key(connection.api_key.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .skip_compatibility_check()
            .build()
            .map_err(to_storage_error)?;
        Ok(Self {
            client,
            collection: collection_name(model, dimensions),
            dimensions,
            splitter: WordSplitter::new(),
        })
    }

    async fn has_collection(&self) -> Result<bool, StorageError> {
        let exists = self.client.collection_exists(&self.collection).await;
        exists.map_err(to_storage_error)
    }

    async fn check_collection(&self) -> Result<(), StorageError> {
        let info = self.client.collection_info(&self.collection).await;
        let info = info.map_err(to_storage_error)?.result.unwrap_or_default();
        self.create_missing_payload_indexes(&info).await?;
        self.check_dimensions(info)
    }

    async fn create_collection(&self, replication_factor: u32) -> Result<(), StorageError> {
        let dimensions = u64::try_from(self.dimensions).unwrap_or(u64::MAX);
        let mut dense = VectorsConfigBuilder::default();
        dense.add_named_vector_params(
            DENSE_VECTOR,
            VectorParamsBuilder::new(dimensions, Distance::Cosine),
        );
        let mut sparse = SparseVectorsConfigBuilder::default();
        sparse.add_named_vector_params(
            SPARSE_VECTOR,
            SparseVectorParamsBuilder::default().modifier(Modifier::Idf),
        );
        let request = CreateCollectionBuilder::new(&self.collection)
            .vectors_config(dense)
            .sparse_vectors_config(sparse)
            .hnsw_config(HnswConfigDiffBuilder::default().m(0).payload_m(LINKS_PER_POINT))
            .on_disk_payload(true)
            .replication_factor(replication_factor);
        match self.client.create_collection(request).await {
            Ok(_) => Ok(()),
            // Another node may have created it meanwhile.
            Err(error) => match self.client.collection_exists(&self.collection).await {
                Ok(true) => Ok(()),
                _ => Err(to_storage_error(error)),
            },
        }
    }

    /// Creates the payload indexes that the collection does not have. It has none if its creator was killed.
    async fn create_missing_payload_indexes(&self, info: &CollectionInfo) -> Result<(), StorageError> {
        // Only the tenant's index has a graph: a graph for each document and label would multiply the memory.
        let tenant = KeywordIndexParamsBuilder::default().is_tenant(true);
        let keys = KeywordIndexParamsBuilder::default().enable_hnsw(false);
        let page = IntegerIndexParamsBuilder::new(true, false).enable_hnsw(false);
        let indexes: [(&str, FieldType, IndexParams); 3] = [
            (TENANT_FIELD, FieldType::Keyword, tenant.into()),
            (KEYS_FIELD, FieldType::Keyword, keys.into()),
            (PAGE_FIELD, FieldType::Integer, page.into()),
        ];
        for (field, kind, params) in indexes {
            if info.payload_schema.contains_key(field) {
                continue;
            }
            let request = CreateFieldIndexCollectionBuilder::new(&self.collection, field, kind)
                .field_index_params(params)
                .wait(true);
            self.client
                .create_field_index(request)
                .await
                .map_err(to_storage_error)?;
        }
        Ok(())
    }

    fn check_dimensions(&self, info: CollectionInfo) -> Result<(), StorageError> {
        let vectors = info
            .config
            .and_then(|config| config.params?.vectors_config?.config);
        let size = match vectors {
            Some(vectors_config::Config::ParamsMap(named)) => {
                named.map.get(DENSE_VECTOR).map(|params| params.size)
            }
            _ => None,
        };
        if size == u64::try_from(self.dimensions).ok() {
            return Ok(());
        }
        Err(StorageError::Failed {
            what: format!("opening the collection '{}' of {SERVER_NAME}", self.collection),
            reason: match size {
                Some(size) => format!(
                    "its vectors have {size} dimensions and those of the embedding model {}",
                    self.dimensions
                ),
                None => format!("it has no vector named '{DENSE_VECTOR}': it was not created by weir"),
            },
        })
    }

    pub(super) async fn upsert_server_points(
        &self,
        mut points: Vec<PointStruct>,
    ) -> Result<(), StorageError> {
        while !points.is_empty() {
            let rest = points.split_off(points.len().min(MAX_POINTS_PER_UPDATE));
            let update = std::mem::replace(&mut points, rest);
            let request = UpsertPointsBuilder::new(&self.collection, update).wait(true);
            self.client
                .upsert_points(request)
                .await
                .map_err(to_storage_error)?;
        }
        Ok(())
    }

    async fn delete_points(&self, filter: PassageFilter) -> Result<(), StorageError> {
        let request = DeletePointsBuilder::new(&self.collection)
            .points(to_server_filter(filter))
            .wait(true);
        self.client
            .delete_points(request)
            .await
            .map(drop)
            .map_err(to_storage_error)
    }
}

#[async_trait]
impl VectorStore for QdrantVectorStore {
    async fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError> {
        // Check all points before the first is written.
        let points = points
            .into_iter()
            .map(|point| {
                to_passage_point(tenant, collection, point, self.dimensions)
                    .and_then(|point| to_server_point(tenant, point, &self.splitter))
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.upsert_server_points(points).await
    }

    async fn remove_document_or_page_points(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        // No request is needed.
        if pages.is_some_and(<[_]>::is_empty) {
            return Ok(());
        }
        self.delete_points(PassageFilter::of_document(tenant, document, pages))
            .await
    }

    async fn remove_document_summaries(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        self.delete_points(PassageFilter::of_document(
            tenant,
            document,
            Some(&[SUMMARY_PAGE]),
        ))
        .await
    }

    async fn remove_tenant_points(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.delete_points(PassageFilter::of_tenant(tenant)).await
    }

    async fn search_by_vector_and_words(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError> {
        check_query(query, self.dimensions)?;
        let limit = query.top_k.clamp(1, MAX_HITS);
        let filter = to_server_filter(PassageFilter::of_query(tenant, query));
        let ranking = |vector: VectorInput, name: &str| {
            PrefetchQueryBuilder::default()
                .query(Query::new_nearest(vector))
                .using(name)
                .filter(filter.clone())
                .limit(candidate_count(limit) as u64)
        };
        let mut request = QueryPointsBuilder::new(&self.collection)
            .add_prefetch(ranking(
                VectorInput::new_dense(query.dense_vector.clone()),
                DENSE_VECTOR,
            ))
            .query(Query::new_rrf(RrfBuilder::with_k(RRF_K.into())))
            .filter(filter.clone())
            .limit(limit as u64)
            .with_payload(true)
            .with_vectors(VectorsSelector {
                names: vec![DENSE_VECTOR.to_owned()],
            });
        let sparse = SparseVector::of_query(&self.splitter.split_query(&query.query_text));
        if !sparse.indices.is_empty() {
            let words = VectorInput::new_sparse(sparse.indices, sparse.values);
            request = request.add_prefetch(ranking(words, SPARSE_VECTOR));
        }
        let response = self.client.query(request).await.map_err(to_storage_error)?;
        let mut matcher = QueryWordMatcher::new(&self.splitter, &query.query_text);
        let hits = response
            .result
            .into_iter()
            .map(|point| {
                Ok(to_search_hit(
                    to_found_point(point)?,
                    &query.dense_vector,
                    &mut matcher,
                ))
            })
            .collect::<Result<Vec<_>, StorageError>>()?;
        Ok(sort_hits(hits))
    }

    async fn count_passages_by_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let request = FacetCountsBuilder::new(&self.collection, PAGE_FIELD)
            .filter(to_server_filter(PassageFilter::of_document(
                tenant, document, None,
            )))
            .limit(MAX_COUNTED_PAGES)
            .exact(true);
        let response = self.client.facet(request).await.map_err(to_storage_error)?;
        let mut pages: Vec<_> = response
            .hits
            .into_iter()
            .filter_map(|hit| {
                let Some(Variant::IntegerValue(page)) = hit.value?.variant else {
                    return None;
                };
                let page = PageNumber::try_from(page).ok()?;
                Some((page, u32::try_from(hit.count).unwrap_or(u32::MAX)))
            })
            .filter(|(page, _)| *page != SUMMARY_PAGE)
            .collect();
        pages.sort_unstable();
        Ok(pages)
    }

    /// Returns at once: each change waited for the server.
    async fn flush_points(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Returns the name of the collection for the vectors of an embedding model. Characters that Qdrant could refuse are replaced.
fn collection_name(model: &str, dimensions: usize) -> String {
    let model: String = model
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    format!("weir-{model}-{dimensions}")
}
