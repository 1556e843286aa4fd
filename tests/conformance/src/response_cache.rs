//! Conformance checks of the cache of responses: replacement, removal, isolation of tenants and eviction.

use std::time::Duration;

use weir_core::llm::{LlmResponse, ResponseCache, ResponseCacheKey, ResponseQuote};
use weir_core::{DocumentId, TenantId};

/// Checks a cache with a limit of `max_bytes`, at least 64 KiB. Evicts the responses that the cache already has. Panics if
/// the cache breaks the contract of its port.
pub async fn check_response_cache(cache: &dyn ResponseCache, max_bytes: usize) {
    let (a, b): (TenantId, TenantId) = ("cache-suite".parse().unwrap(), "cache-suite-b".parse().unwrap());
    let suite = Suite { cache };
    suite.check_lookup(&a, &b).await;
    suite.check_removal(&a, &b).await;
    suite.check_eviction(&a, &b, max_bytes).await;
}

struct Suite<'a> {
    cache: &'a dyn ResponseCache,
}

fn cache_key(name: &str) -> ResponseCacheKey {
    let mut key = [0xc5; 32];
    for (byte, of_name) in key.iter_mut().zip(name.bytes()) {
        *byte = of_name;
    }
    key
}

fn make_response(text: impl Into<String>) -> LlmResponse {
    LlmResponse {
        text: text.into(),
        quotes: vec![ResponseQuote {
            response_range: 0..1,
            source_range: 7..8,
        }],
        prompt_tokens: Some(3),
        completion_tokens: None,
        provider: "near".into(),
        model: "m".into(),
        cached: false,
        waiting_time: Duration::from_millis(1500),
        provider_time: Duration::from_nanos(1),
    }
}

impl Suite<'_> {
    async fn get(&self, tenant: &TenantId, name: &str) -> Option<LlmResponse> {
        let key = cache_key(name);
        self.cache.get_cached_response(tenant, &key).await.unwrap()
    }

    /// Returns whether each response is cached. Counts as a use of each.
    async fn are_cached<const N: usize>(&self, tenant: &TenantId, names: [&str; N]) -> [bool; N] {
        let mut cached = [false; N];
        for (cached, name) in cached.iter_mut().zip(names) {
            *cached = self.get(tenant, name).await.is_some();
        }
        cached
    }

    async fn put(
        &self,
        tenant: &TenantId,
        name: &str,
        document: Option<&DocumentId>,
        response: &LlmResponse,
    ) {
        let key = cache_key(name);
        let put = self.cache.put_cached_response(tenant, &key, document, response);
        put.await.unwrap();
    }

    async fn check_lookup(&self, a: &TenantId, b: &TenantId) {
        assert_eq!(self.get(a, "lookup").await, None, "nothing was put");
        for text in ["yes", "a longer response", "ö"] {
            self.put(a, "lookup", None, &make_response(text)).await;
            assert_eq!(
                self.get(a, "lookup").await,
                Some(make_response(text)),
                "the latest response of the key, with all fields"
            );
        }
        assert_eq!(
            self.get(b, "lookup").await,
            None,
            "the response belongs to another tenant"
        );
    }

    async fn check_removal(&self, a: &TenantId, b: &TenantId) {
        let (one, two) = (
            DocumentId::from_content(b"cache suite 1"),
            DocumentId::from_content(b"cache suite 2"),
        );
        let response = make_response("yes");
        for (tenant, names) in [(a, ["a1", "a2", "a-none"]), (b, ["b1", "b2", "b-none"])] {
            for (name, document) in names.into_iter().zip([Some(&one), Some(&two), None]) {
                self.put(tenant, name, document, &response).await;
            }
        }
        let cached = async || {
            (
                self.are_cached(a, ["a1", "a2", "a-none"]).await,
                self.are_cached(b, ["b1", "b2", "b-none"]).await,
            )
        };
        assert_eq!(cached().await, ([true; 3], [true; 3]));
        // The second removal finds nothing.
        for _ in 0..2 {
            let removed = self.cache.remove_cached_document_responses(a, &one);
            removed.await.unwrap();
            assert_eq!(
                cached().await,
                ([false, true, false], [true; 3]),
                "the tenant's responses of the document and of no document are removed"
            );
        }
        for _ in 0..2 {
            self.cache.remove_cached_tenant_responses(a).await.unwrap();
            assert_eq!(
                cached().await,
                ([false; 3], [true; 3]),
                "all of one tenant are removed"
            );
        }
        self.put(a, "a1", Some(&one), &response).await;
        assert!(
            self.get(a, "a1").await.is_some(),
            "a removed response is put again"
        );
    }

    async fn check_eviction(&self, a: &TenantId, b: &TenantId, max_bytes: usize) {
        // The cache has space for three of these responses.
        let large = make_response("x".repeat(max_bytes / 4));
        let too_large = make_response("x".repeat(max_bytes));
        for name in ["e0", "e1", "e2"] {
            self.put(a, name, None, &large).await;
        }
        assert!(self.get(a, "e0").await.is_some(), "three responses fit");
        assert_eq!(
            self.get(b, "e1").await,
            None,
            "the response belongs to another tenant"
        );
        self.put(a, "e3", None, &large).await;
        assert_eq!(
            self.are_cached(a, ["e0", "e1", "e2", "e3"]).await,
            [true, false, true, true],
            "the least recently used response is evicted; a get by another tenant is no use"
        );
        self.put(a, "e3", None, &large).await;
        self.put(a, "e4", None, &too_large).await;
        assert_eq!(
            self.are_cached(a, ["e0", "e2", "e3", "e4"]).await,
            [true, true, true, false],
            "neither a replacement nor a response above the limit evicts others"
        );
        self.put(a, "e3", None, &too_large).await;
        assert_eq!(
            self.are_cached(a, ["e0", "e2", "e3"]).await,
            [true, true, false],
            "a response above the limit removes the earlier response of its key"
        );

        self.cache.remove_cached_tenant_responses(a).await.unwrap();
        for name in ["f0", "f1", "f2"] {
            self.put(b, name, None, &large).await;
        }
        assert_eq!(
            self.are_cached(b, ["f0", "f1", "f2"]).await,
            [true; 3],
            "a removal frees the space of the removed responses"
        );
        self.cache.remove_cached_tenant_responses(b).await.unwrap();
    }
}
