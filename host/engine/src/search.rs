//! Finding passages.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use weir_core::ports::Account;
use weir_core::search::{Hit, Query};
use weir_core::{DocumentId, InferenceError, Lane, StorageError, TenantId};

use crate::Engine;

/// Searches of one tenant that ask the index at the same time.
const AT_ONCE: usize = 8;

/// A question to the index.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// Whose documents are searched.
    pub tenant: TenantId,
    /// The words.
    pub text: String,
    /// Hits wanted, at least 1.
    pub top_k: usize,
    /// Only in these documents, if any are named.
    pub documents: Vec<DocumentId>,
    /// Only in this collection.
    pub collection: Option<String>,
    /// Only where all these labels hold.
    pub labels: Vec<(String, String)>,
    /// The tenant's share of a busy model, relative to other tenants' searches.
    pub weight: f64,
}

impl SearchRequest {
    /// The best five hits in everything the tenant has.
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

/// A search that could not be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The words could not be embedded.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The index could not be asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl SearchError {
    /// A stable word for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Inference(e) => e.kind(),
            Self::Storage(e) => e.kind(),
        }
    }
}

impl Engine {
    /// The passages that answer best, best first. Documents still in work are searched as far as they have come.
    pub async fn search(&self, request: SearchRequest) -> Result<Vec<Hit>, SearchError> {
        let mut answers = self.search_many(vec![request]).await;
        answers.pop().unwrap_or_else(|| Err(unanswered()))
    }

    /// As [`Engine::search`] for many at once, answered in their order: the words of one tenant are embedded in one call, so
    /// that they share the model's batches.
    pub async fn search_many(&self, requests: Vec<SearchRequest>) -> Vec<Result<Vec<Hit>, SearchError>> {
        let count = requests.len();
        let mut tenants: HashMap<TenantId, Vec<(usize, SearchRequest)>> = HashMap::new();
        for (place, request) in requests.into_iter().enumerate() {
            tenants
                .entry(request.tenant.clone())
                .or_default()
                .push((place, request));
        }
        let answers = join_all(
            tenants
                .into_iter()
                .map(|(tenant, requests)| self.search_for(tenant, requests)),
        );
        let mut in_order: Vec<_> = (0..count).map(|_| Err(unanswered())).collect();
        for (place, answer) in answers.await.into_iter().flatten() {
            if let Some(slot) = in_order.get_mut(place) {
                *slot = answer;
            }
        }
        in_order
    }

    /// One tenant's searches, each with its place among all.
    async fn search_for(
        &self,
        tenant: TenantId,
        requests: Vec<(usize, SearchRequest)>,
    ) -> Vec<(usize, Result<Vec<Hit>, SearchError>)> {
        let ports = &self.host.ports;
        // Someone waits for the answers, so the words do not wait for company.
        let account = Account {
            tenant: tenant.clone(),
            lane: Lane::Interactive,
            linger: Duration::ZERO,
            weight: request.weight,
        };
        let texts = requests.iter().map(|(_, request)| request.text.clone()).collect();
        let vectors = match ports.embedder.embed(&account, texts).await {
            Ok(vectors) => vectors,
            Err(error) => {
                let failed = |(place, _)| (place, Err(error.clone().into()));
                return requests.into_iter().map(failed).collect();
            }
        };
        let mut vectors = vectors.into_iter();
        let searches: Vec<_> = requests
            .into_iter()
            .map(|(place, request)| (place, request, vectors.next()))
            .collect();
        stream::iter(searches)
            .map(|(place, request, dense)| {
                let tenant = &tenant;
                async move {
                    let Some(dense) = dense else {
                        return (place, Err(unanswered()));
                    };
                    let query = Query {
                        text: request.text,
                        dense,
                        top_k: request.top_k.max(1),
                        documents: request.documents,
                        collection: request.collection,
                        labels: request.labels,
                    };
                    let hits = ports.vectors.search(tenant, &query).await;
                    (place, hits.map_err(SearchError::from))
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }
}

fn unanswered() -> SearchError {
    SearchError::Inference(InferenceError::Failed {
        model: "text embedding".into(),
        reason: "no vector for the question".into(),
    })
}
