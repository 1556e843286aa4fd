//! Search for passages.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use weir_core::ports::SchedulingContext;
use weir_core::search::{SearchHit, SearchQuery};
use weir_core::{DocumentId, InferenceError, PriorityLane, StorageError, TenantId};

use crate::engine::Engine;

/// The most searches of one tenant that query the index at the same time.
const MAX_CONCURRENT_SEARCHES: usize = 8;

/// A search query of a tenant.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// The tenant whose documents are searched.
    pub tenant: TenantId,
    /// The query text.
    pub text: String,
    /// The most hits to return, at least 1.
    pub top_k: usize,
    /// Searches only these documents; all documents if empty.
    pub documents: Vec<DocumentId>,
    /// Searches only this collection.
    pub collection: Option<String>,
    /// Searches only passages that have all these labels.
    pub labels: Vec<(String, String)>,
    /// The tenant's share of a busy model, relative to other tenants' searches.
    pub weight: f64,
}

impl SearchRequest {
    /// Creates a request for the best five hits in all documents of the tenant.
    pub fn new(tenant: TenantId, text: impl Into<String>) -> Self {
        Self {
            tenant,
            text: text.into(),
            top_k: 5,
            documents: Vec::new(),
            collection: None,
            labels: Vec::new(),
            weight: 1.0,
        }
    }
}

/// The error of a search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The query text could not be embedded.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The index could not be searched.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl SearchError {
    /// Returns a stable error kind for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Inference(e) => e.kind(),
            Self::Storage(e) => e.kind(),
        }
    }
}

impl Engine {
    /// Returns the best passages, best first. Of documents that are still processed, the finished pages are searched.
    pub async fn search(&self, request: SearchRequest) -> Result<Vec<SearchHit>, SearchError> {
        let mut results = self.search_many(vec![request]).await;
        results.pop().unwrap_or_else(|| Err(missing_vector_error()))
    }

    /// Runs many searches at once, like [`Engine::search`], and returns their results in the order of the requests. The query
    /// texts of one tenant are embedded in one call, so they share the model's batches.
    pub async fn search_many(
        &self,
        requests: Vec<SearchRequest>,
    ) -> Vec<Result<Vec<SearchHit>, SearchError>> {
        let count = requests.len();
        let mut tenants: HashMap<TenantId, Vec<(usize, SearchRequest)>> = HashMap::new();
        for (index, request) in requests.into_iter().enumerate() {
            tenants
                .entry(request.tenant.clone())
                .or_default()
                .push((index, request));
        }
        let results = join_all(
            tenants
                .into_iter()
                .map(|(tenant, requests)| self.run_tenant_searches(tenant, requests)),
        );
        let mut in_order: Vec<_> = (0..count).map(|_| Err(missing_vector_error())).collect();
        for (index, result) in results.await.into_iter().flatten() {
            if let Some(slot) = in_order.get_mut(index) {
                *slot = result;
            }
        }
        in_order
    }

    /// Runs the searches of one tenant. Each comes and returns with its index in the order of all requests.
    async fn run_tenant_searches(
        &self,
        tenant: TenantId,
        requests: Vec<(usize, SearchRequest)>,
    ) -> Vec<(usize, Result<Vec<SearchHit>, SearchError>)> {
        let ports = &self.state.ports;
        // A user waits for the results, so the embedding does not wait for a fuller batch.
        let account = SchedulingContext {
            tenant: tenant.clone(),
            lane: PriorityLane::Interactive,
            group: 0,
            batch_linger: Duration::ZERO,
            tenant_weight: requests.first().map_or(1.0, |(_, request)| request.weight),
        };
        let texts = requests.iter().map(|(_, request)| request.text.clone()).collect();
        let vectors = match ports.embedder.embed_texts(&account, texts).await {
            Ok(vectors) => vectors,
            Err(error) => {
                let failed = |(index, _)| (index, Err(error.clone().into()));
                return requests.into_iter().map(failed).collect();
            }
        };
        let mut vectors = vectors.into_iter();
        let searches: Vec<_> = requests
            .into_iter()
            .map(|(index, request)| (index, request, vectors.next()))
            .collect();
        stream::iter(searches)
            .map(|(index, request, dense)| {
                let tenant = &tenant;
                async move {
                    let Some(dense) = dense else {
                        return (index, Err(missing_vector_error()));
                    };
                    let query = SearchQuery {
                        query_text: request.text,
                        dense_vector: dense,
                        top_k: request.top_k.max(1),
                        documents: request.documents,
                        collection: request.collection,
                        labels: request.labels,
                    };
                    let hits = ports.vectors.search_by_vector_and_words(tenant, &query).await;
                    (index, hits.map_err(SearchError::from))
                }
            })
            .buffer_unordered(MAX_CONCURRENT_SEARCHES)
            .collect()
            .await
    }
}

fn missing_vector_error() -> SearchError {
    SearchError::Inference(InferenceError::Failed {
        model: "text embedding".into(),
        reason: "the model returned no vector for the query".into(),
    })
}
