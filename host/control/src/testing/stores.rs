//! Fake stores of blobs and vectors in memory, and a fake embedder that counts its calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::blob_key::{check_blob_key, check_blob_key_prefix};
use weir_core::decision::ComputeDevice;
use weir_core::ports::{BlobStore, Embedder, SchedulingContext, VectorStore};
use weir_core::search::{IndexPoint, SearchHit, SearchQuery};
use weir_core::{DocumentId, InferenceError, PageNumber, StorageError, TenantId};

/// Blobs in memory.
#[derive(Default)]
pub struct FakeBlobStore(Mutex<BTreeMap<(TenantId, String), Vec<u8>>>);

#[async_trait]
impl BlobStore for FakeBlobStore {
    async fn put_blob(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        check_blob_key(key)?;
        self.0
            .lock()
            .insert((tenant.clone(), key.to_owned()), bytes.to_vec());
        Ok(())
    }

    async fn get_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        check_blob_key(key)?;
        Ok(self.0.lock().get(&(tenant.clone(), key.to_owned())).cloned())
    }

    async fn list_blob_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        check_blob_key_prefix(prefix)?;
        let stored_blobs = self.0.lock();
        let keys = stored_blobs
            .keys()
            .filter(|(t, key)| t == tenant && key.starts_with(prefix));
        Ok(keys.map(|(_, key)| key.clone()).collect())
    }

    async fn delete_blobs_with_prefix(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        check_blob_key_prefix(prefix)?;
        self.0
            .lock()
            .retain(|(t, key), _| !(t == tenant && key.starts_with(prefix)));
        Ok(())
    }

    async fn flush_blobs(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A vector store whose search finds the passages that contain the text of the query.
#[derive(Default)]
pub struct FakeVectorStore(pub Mutex<Vec<(TenantId, String, IndexPoint)>>);

#[async_trait]
impl VectorStore for FakeVectorStore {
    async fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError> {
        let points = points
            .into_iter()
            .map(|p| (tenant.clone(), collection.to_owned(), p));
        let mut stored_points = self.0.lock();
        for (tenant, collection, point) in points {
            stored_points.retain(|(t, _, p)| !(*t == tenant && p.id == point.id));
            stored_points.push((tenant, collection, point));
        }
        Ok(())
    }

    async fn remove_document_or_page_points(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        let meant = |p: &IndexPoint| {
            p.document == *document && pages.is_none_or(|pages| !p.is_summary() && pages.contains(&p.page))
        };
        self.0.lock().retain(|(t, _, p)| !(t == tenant && meant(p)));
        Ok(())
    }

    async fn remove_document_summaries(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let meant = |p: &IndexPoint| p.document == *document && p.is_summary();
        self.0.lock().retain(|(t, _, p)| !(t == tenant && meant(p)));
        Ok(())
    }

    async fn remove_tenant_points(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.0.lock().retain(|(t, _, _)| t != tenant);
        Ok(())
    }

    async fn search_by_vector_and_words(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError> {
        let stored_points = self.0.lock();
        let hits = stored_points.iter().filter(|(t, collection, p)| {
            t == tenant
                && p.text.contains(&query.query_text)
                && (query.documents.is_empty() || query.documents.contains(&p.document))
                && query.collection.as_ref().is_none_or(|c| c == collection)
                && query.labels.iter().all(|label| p.labels.contains(label))
        });
        let hits = hits.take(query.top_k).map(|(_, _, p)| SearchHit {
            document: p.document,
            name: p.document_name.clone(),
            page: p.page,
            summary: p.is_summary(),
            labels: p.labels.iter().cloned().collect(),
            score: 1.0,
            similarity: 1.0,
            weak: false,
            matches: Vec::new(),
            text: p.text.clone(),
            rect: p.rect,
            image: p.image.clone(),
        });
        Ok(hits.collect())
    }

    async fn count_passages_by_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let stored_points = self.0.lock();
        let mut pages = BTreeMap::new();
        for (_, _, point) in stored_points
            .iter()
            .filter(|(t, _, p)| t == tenant && p.document == *document && !p.is_summary())
        {
            *pages.entry(point.page).or_insert(0) += 1;
        }
        Ok(pages.into_iter().collect())
    }

    async fn flush_points(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// An embedder that takes no time, or the time in `takes`, and counts its calls and texts.
#[derive(Default)]
pub struct CountingEmbedder {
    /// The number of calls.
    pub embed_calls: AtomicUsize,
    /// The number of embedded texts.
    pub embedded_texts: AtomicUsize,
    /// How long each call takes.
    pub delay: Mutex<Duration>,
}

#[async_trait]
impl Embedder for CountingEmbedder {
    async fn embed_texts(
        &self,
        _account: &SchedulingContext,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.embed_calls.fetch_add(1, Ordering::Relaxed);
        self.embedded_texts.fetch_add(texts.len(), Ordering::Relaxed);
        let takes = *self.delay.lock();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(texts.iter().map(|_| vec![1.0]).collect())
    }

    fn count_tokens(&self, _text: &str) -> Result<u32, InferenceError> {
        Ok(1)
    }

    fn vector_dimensions(&self) -> usize {
        1
    }

    fn max_input_tokens(&self) -> u32 {
        256
    }

    fn worker_count(&self) -> u32 {
        2
    }

    fn compute_device(&self) -> ComputeDevice {
        ComputeDevice::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fake_blob_store_passes_the_conformance_suite() {
        weir_conformance::check_blob_store(&FakeBlobStore::default()).await;
    }

    #[tokio::test]
    async fn fake_vector_store_passes_the_conformance_suite() {
        weir_conformance::check_vector_store(&FakeVectorStore::default(), 4).await;
    }
}
