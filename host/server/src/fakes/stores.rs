//! Blobs and passages in memory, and an embedder that counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::decision::Device;
use weir_core::ports::{Account, BlobStore, Embedder, VectorStore};
use weir_core::search::{Hit, Point, Query};
use weir_core::{DocumentId, InferenceError, PageNumber, StorageError, TenantId};

/// Blobs in memory.
#[derive(Default)]
pub(crate) struct Blobs(Mutex<BTreeMap<(TenantId, String), Vec<u8>>>);

#[async_trait]
impl BlobStore for Blobs {
    async fn put(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.0
            .lock()
            .insert((tenant.clone(), key.to_owned()), bytes.to_vec());
        Ok(())
    }

    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.lock().get(&(tenant.clone(), key.to_owned())).cloned())
    }

    async fn list(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        let kept = self.0.lock();
        let keys = kept
            .keys()
            .filter(|(t, key)| t == tenant && key.starts_with(prefix));
        Ok(keys.map(|(_, key)| key.clone()).collect())
    }

    async fn delete(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        self.0
            .lock()
            .retain(|(t, key), _| !(t == tenant && key.starts_with(prefix)));
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

#[path = "../../../core/conformance/vector_store.rs"]
mod conformance;

#[tokio::test]
async fn fake_vector_store_conforms() {
    conformance::check_vector_store(&Vectors::default(), 4).await;
}

/// Finds the passages that contain the query's words.
#[derive(Default)]
pub(crate) struct Vectors(pub(crate) Mutex<Vec<(TenantId, String, Point)>>);

#[async_trait]
impl VectorStore for Vectors {
    async fn upsert(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<Point>,
    ) -> Result<(), StorageError> {
        let points = points
            .into_iter()
            .map(|p| (tenant.clone(), collection.to_owned(), p));
        let mut kept = self.0.lock();
        for (tenant, collection, point) in points {
            kept.retain(|(t, _, p)| !(*t == tenant && p.id == point.id));
            kept.push((tenant, collection, point));
        }
        Ok(())
    }

    async fn remove(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        let meant = |p: &Point| {
            p.document == *document && pages.is_none_or(|pages| !p.is_summary() && pages.contains(&p.page))
        };
        self.0.lock().retain(|(t, _, p)| !(t == tenant && meant(p)));
        Ok(())
    }

    async fn remove_summaries(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        let meant = |p: &Point| p.document == *document && p.is_summary();
        self.0.lock().retain(|(t, _, p)| !(t == tenant && meant(p)));
        Ok(())
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.0.lock().retain(|(t, _, _)| t != tenant);
        Ok(())
    }

    async fn search(&self, tenant: &TenantId, query: &Query) -> Result<Vec<Hit>, StorageError> {
        let kept = self.0.lock();
        let hits = kept.iter().filter(|(t, collection, p)| {
            t == tenant
                && p.text.contains(&query.text)
                && (query.documents.is_empty() || query.documents.contains(&p.document))
                && query.collection.as_ref().is_none_or(|c| c == collection)
                && query.labels.iter().all(|label| p.labels.contains(label))
        });
        let hits = hits.take(query.top_k).map(|(_, _, p)| Hit {
            document: p.document,
            name: p.name.clone(),
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

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let kept = self.0.lock();
        let mut pages = BTreeMap::new();
        for (_, _, point) in kept
            .iter()
            .filter(|(t, _, p)| t == tenant && p.document == *document && !p.is_summary())
        {
            *pages.entry(point.page).or_insert(0) += 1;
        }
        Ok(pages.into_iter().collect())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Embeds texts in no time, or in the time that is set, and counts.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) calls: AtomicUsize,
    pub(crate) texts: AtomicUsize,
    pub(crate) takes: Mutex<Duration>,
}

#[async_trait]
impl Embedder for Counting {
    async fn embed(&self, _account: &Account, texts: Vec<String>) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.texts.fetch_add(texts.len(), Ordering::Relaxed);
        let takes = *self.takes.lock();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(texts.iter().map(|_| vec![1.0]).collect())
    }

    fn count_tokens(&self, _text: &str) -> Result<u32, InferenceError> {
        Ok(1)
    }

    fn dimensions(&self) -> usize {
        1
    }

    fn max_tokens(&self) -> u32 {
        256
    }

    fn workers(&self) -> u32 {
        2
    }

    fn device(&self) -> Device {
        Device::default()
    }
}
