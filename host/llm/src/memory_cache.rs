//! A response cache in memory that evicts the least recently used entries.

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use weir_core::llm::{LlmResponse, ResponseCache, ResponseCacheKey};
use weir_core::{DocumentId, StorageError, TenantId};

/// Estimated bytes of an entry beside its texts.
const ENTRY_OVERHEAD_BYTES: usize = 256;

struct CacheEntry {
    tenant: TenantId,
    document: Option<DocumentId>,
    response: LlmResponse,
    bytes: usize,
}

struct CacheState {
    entries: LruCache<ResponseCacheKey, CacheEntry>,
    total_bytes: usize,
}

/// A response cache that lives as long as the process.
pub struct MemoryResponseCache {
    max_bytes: usize,
    state: Mutex<CacheState>,
}

impl MemoryResponseCache {
    /// Creates a cache of at most `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            max_bytes: bytes,
            state: Mutex::new(CacheState {
                entries: LruCache::unbounded(),
                total_bytes: 0,
            }),
        }
    }
}

impl CacheState {
    fn remove_entry(&mut self, key: &ResponseCacheKey) {
        if let Some(entry) = self.entries.pop(key) {
            self.total_bytes -= entry.bytes;
        }
    }

    fn remove_matching_entries(&mut self, matches: impl Fn(&CacheEntry) -> bool) {
        let matching = self.entries.iter().filter(|(_, entry)| matches(entry));
        let keys: Vec<ResponseCacheKey> = matching.map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| self.remove_entry(key));
    }
}

#[async_trait]
impl ResponseCache for MemoryResponseCache {
    async fn get_cached_response(
        &self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
    ) -> Result<Option<LlmResponse>, StorageError> {
        let mut state = self.state.lock();
        // Another tenant's lookup must not count as a use.
        if state
            .entries
            .peek(key)
            .is_none_or(|entry| entry.tenant != *tenant)
        {
            return Ok(None);
        }
        Ok(state.entries.get(key).map(|entry| entry.response.clone()))
    }

    async fn put_cached_response(
        &self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
        document: Option<&DocumentId>,
        response: &LlmResponse,
    ) -> Result<(), StorageError> {
        let quotes = response.quotes.len() * size_of::<weir_core::llm::ResponseQuote>();
        let bytes = response.text.len() + quotes + ENTRY_OVERHEAD_BYTES;
        let mut state = self.state.lock();
        state.remove_entry(key);
        if bytes > self.max_bytes {
            return Ok(());
        }
        while state.total_bytes + bytes > self.max_bytes {
            let Some((_, evicted)) = state.entries.pop_lru() else {
                break;
            };
            state.total_bytes -= evicted.bytes;
        }
        let entry = CacheEntry {
            tenant: tenant.clone(),
            document: document.copied(),
            response: response.clone(),
            bytes,
        };
        state.entries.put(*key, entry);
        state.total_bytes += bytes;
        Ok(())
    }

    async fn remove_cached_document_responses(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let of_document = |entry: &CacheEntry| entry.document.is_none_or(|known| known == *document);
        self.state
            .lock()
            .remove_matching_entries(|entry| entry.tenant == *tenant && of_document(entry));
        Ok(())
    }

    async fn remove_cached_tenant_responses(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.state
            .lock()
            .remove_matching_entries(|entry| entry.tenant == *tenant);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn response_of_bytes(bytes: usize) -> LlmResponse {
        LlmResponse {
            text: "x".repeat(bytes),
            quotes: Vec::new(),
            prompt_tokens: None,
            completion_tokens: None,
            provider: "p".into(),
            model: "m".into(),
            cached: false,
            waiting_time: Duration::ZERO,
            provider_time: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn lru_entry_is_evicted_and_entries_are_scoped_to_the_tenant() {
        let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
        let cache = MemoryResponseCache::new(3 * (100 + ENTRY_OVERHEAD_BYTES));
        let known = async |key: u8| {
            cache
                .get_cached_response(&one, &[key; 32])
                .await
                .unwrap()
                .is_some()
        };
        for key in 0..3 {
            cache
                .put_cached_response(&one, &[key; 32], None, &response_of_bytes(100))
                .await
                .unwrap();
        }
        assert!(known(0).await);
        cache
            .put_cached_response(&one, &[3; 32], None, &response_of_bytes(100))
            .await
            .unwrap();
        assert_eq!(
            [known(0).await, known(1).await, known(2).await, known(3).await],
            [true, false, true, true]
        );
        assert!(
            cache
                .get_cached_response(&other, &[0; 32])
                .await
                .unwrap()
                .is_none()
        );
        // Replacing an entry takes no more space, and an entry above the maximum size is not stored.
        cache
            .put_cached_response(&one, &[3; 32], None, &response_of_bytes(100))
            .await
            .unwrap();
        cache
            .put_cached_response(&one, &[4; 32], None, &response_of_bytes(10_000))
            .await
            .unwrap();
        assert_eq!(
            [known(0).await, known(3).await, known(4).await],
            [true, true, false]
        );
        cache
            .put_cached_response(&other, &[5; 32], None, &response_of_bytes(10))
            .await
            .unwrap();
        cache.remove_cached_tenant_responses(&one).await.unwrap();
        assert_eq!(cache.state.lock().entries.len(), 1);
        assert_eq!(cache.state.lock().total_bytes, 10 + ENTRY_OVERHEAD_BYTES);
    }
}
