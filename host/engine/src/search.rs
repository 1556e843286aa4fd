//! Finding passages.

use std::time::Duration;

use weir_core::ports::Account;
use weir_core::search::{Hit, Query};
use weir_core::{DocumentId, InferenceError, Lane, StorageError, TenantId};

use crate::Engine;

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
        let ports = &self.host.ports;
        // Someone waits for the answer, so the words do not wait for company.
        let account = Account {
            tenant: request.tenant.clone(),
            lane: Lane::Interactive,
            linger: Duration::ZERO,
            weight: request.weight,
        };
        let dense = ports.embedder.embed(&account, vec![request.text.clone()]).await?;
        let dense = dense.into_iter().next().ok_or_else(|| InferenceError::Failed {
            model: "text embedding".into(),
            reason: "no vector for the question".into(),
        })?;
        let query = Query {
            text: request.text,
            dense,
            top_k: request.top_k.max(1),
            documents: request.documents,
            collection: request.collection,
            labels: request.labels,
        };
        Ok(ports.vectors.search(&request.tenant, &query).await?)
    }
}
