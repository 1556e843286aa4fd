//! Stores of blobs and passages whose calls are measured.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::ports::{BlobStore, VectorStore};
use weir_core::search::{IndexPoint, SearchHit, SearchQuery};
use weir_core::store_status::StoreStatus;
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use crate::store_metrics::StoreMetrics;

/// A store whose calls are measured.
pub(crate) struct MeasuredStore<S: ?Sized> {
    store: Arc<S>,
    metrics: StoreMetrics,
}

impl<S: ?Sized> MeasuredStore<S> {
    /// Wraps `store`. `name` is its name in metrics.
    pub(crate) fn new(store: Arc<S>, name: &'static str) -> Self {
        Self {
            store,
            metrics: StoreMetrics::new(name),
        }
    }

    /// Returns whether the latest call has succeeded.
    pub(crate) fn status(&self) -> Arc<StoreStatus> {
        self.metrics.status()
    }
}

#[async_trait]
impl BlobStore for MeasuredStore<dyn BlobStore> {
    async fn put_blob(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.metrics
            .measure(self.store.put_blob(tenant, key, bytes))
            .await
    }

    async fn get_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.metrics.measure(self.store.get_blob(tenant, key)).await
    }

    async fn list_blob_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.metrics
            .measure(self.store.list_blob_keys(tenant, prefix))
            .await
    }

    async fn delete_blobs_with_prefix(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        self.metrics
            .measure(self.store.delete_blobs_with_prefix(tenant, prefix))
            .await
    }

    async fn flush_blobs(&self) -> Result<(), StorageError> {
        self.metrics.measure(self.store.flush_blobs()).await
    }
}

#[async_trait]
impl VectorStore for MeasuredStore<dyn VectorStore> {
    async fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError> {
        self.metrics
            .measure(self.store.upsert_points(tenant, collection, points))
            .await
    }

    async fn remove_document_or_page_points(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        self.metrics
            .measure(self.store.remove_document_or_page_points(tenant, document, pages))
            .await
    }

    async fn remove_document_summaries(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        self.metrics
            .measure(self.store.remove_document_summaries(tenant, document))
            .await
    }

    async fn remove_tenant_points(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.metrics
            .measure(self.store.remove_tenant_points(tenant))
            .await
    }

    async fn search_by_vector_and_words(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError> {
        self.metrics
            .measure(self.store.search_by_vector_and_words(tenant, query))
            .await
    }

    async fn count_passages_by_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        self.metrics
            .measure(self.store.count_passages_by_page(tenant, document))
            .await
    }

    async fn flush_points(&self) -> Result<(), StorageError> {
        self.metrics.measure(self.store.flush_points()).await
    }
}
