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
    use super::*;

    #[tokio::test]
    async fn memory_response_cache_passes_the_conformance_suite() {
        let cache = MemoryResponseCache::new(1 << 20);
        weir_conformance::check_response_cache(&cache, 1 << 20).await;
        let state = cache.state.lock();
        assert_eq!((state.entries.len(), state.total_bytes), (0, 0));
    }
}
