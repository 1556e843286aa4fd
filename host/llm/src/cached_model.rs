//! A language model with a response cache. Requests that were answered before, and equal requests at the same time, cause one
//! call.
//!
//! The cache key is a hash of everything that determines a response: tenant, model, request kind, system prompt, prompt, text,
//! image and maximum number of tokens. The tenant is part of the key because the time of a response would otherwise reveal to
//! one tenant what another has requested. A response is stored under the model that wrote it and looked up under every model
//! that can answer. The store also records the document of the request, and deletes the response together with the document.
//!
//! Of equal concurrent requests, the first makes the call and the others wait for its response. If the first is dropped or
//! exceeds its own timeout, the next makes the call, so that one caller's timeout does not fail the other callers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::{Duration, Instant, timeout};
use weir_core::llm::{
    LanguageModel, LlmError, LlmRequest, LlmResponse, ProviderFailureInfo, ResponseCache, ResponseCacheKey,
};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::llm_metrics::{CacheMetrics, RouterStats};
use crate::router::Router;

/// Changes whenever the hashed fields change.
const CACHE_KEY_VERSION: &[u8] = b"weir answer 1";

/// Time after the router's timeout at which this layer gives up.
const DEADLINE_MARGIN: Duration = Duration::from_millis(20);

type RequestOutcome = Result<LlmResponse, LlmError>;
type InFlightRequests = Mutex<HashMap<ResponseCacheKey, Weak<OnceCell<RequestOutcome>>>>;

/// One caller of a request in flight. Dropping the last guard removes the entry.
struct InFlightGuard<'a> {
    in_flight: &'a InFlightRequests,
    key: ResponseCacheKey,
    outcome: Arc<OnceCell<RequestOutcome>>,
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        // Holds the lock so that no caller can join between the check and the removal.
        let mut in_flight = self.in_flight.lock();
        if Arc::strong_count(&self.outcome) == 1 {
            in_flight.remove(&self.key);
        }
    }
}

/// A router with a response cache.
pub struct CachedLanguageModel {
    router: Router,
    cache: Option<Arc<dyn ResponseCache>>,
    in_flight: InFlightRequests,
    metrics: CacheMetrics,
}

impl CachedLanguageModel {
    /// Without a cache, only equal concurrent requests share a call.
    pub fn new(router: Router, cache: Option<Arc<dyn ResponseCache>>) -> Self {
        Self {
            router,
            cache,
            in_flight: Mutex::default(),
            metrics: CacheMetrics::new(),
        }
    }

    /// The state of the providers.
    pub fn router_stats(&self) -> RouterStats {
        self.router.stats()
    }

    /// Stops the router; see [`Router::close`].
    pub async fn close(&self) {
        self.router.close().await;
    }

    /// The router, which does not use the cache.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// Returns a cached response of any model that can answer the request.
    async fn find_cached_response(&self, request: &LlmRequest) -> Option<LlmResponse> {
        let cache = self.cache.as_ref()?;
        let needs_images = request.image.is_some();
        let tenant = &request.scheduling.tenant;
        for entry in self
            .router
            .providers()
            .iter()
            .filter(|m| !needs_images || m.provider.supports_images())
        {
            let key = compute_cache_key(request, Some(entry.provider.model_name()));
            match cache.get_cached_response(tenant, &key).await {
                Ok(Some(response)) => return Some(response),
                Ok(None) => {}
                // A cache miss costs a repeated call and nothing else.
                Err(error) => tracing::warn!(%error, "cannot read the response cache"),
            }
        }
        None
    }

    async fn store_response(&self, request: &LlmRequest, response: &LlmResponse) {
        let Some(cache) = &self.cache else { return };
        let key = compute_cache_key(request, Some(&response.model));
        let document = request.document.as_ref();
        let put = cache.put_cached_response(&request.scheduling.tenant, &key, document, response);
        if let Err(error) = put.await {
            tracing::warn!(%error, "cannot store a response in the cache");
        }
    }

    fn join_or_register_in_flight(&self, key: ResponseCacheKey) -> InFlightGuard<'_> {
        let mut in_flight = self.in_flight.lock();
        let existing = in_flight.get(&key).and_then(Weak::upgrade);
        let outcome = existing.unwrap_or_else(|| {
            let outcome = Arc::new(OnceCell::new());
            in_flight.insert(key, Arc::downgrade(&outcome));
            outcome
        });
        InFlightGuard {
            in_flight: &self.in_flight,
            key,
            outcome,
        }
    }

    /// Sends the request, or waits for an equal request in flight. The flag is true if the outcome is shared.
    async fn send_or_join_request(&self, request: &LlmRequest, began: Instant) -> (RequestOutcome, bool) {
        let in_flight = self.join_or_register_in_flight(compute_cache_key(request, None));
        let mut made_call = false;
        let lead = async {
            made_call = true;
            let remaining = request.timeout.saturating_sub(began.elapsed());
            let router_request = LlmRequest {
                timeout: remaining,
                ..request.clone()
            };
            match self.router.request_completion(router_request).await {
                // These errors depend on this caller's timeout or on its tenant's queue or quota at that moment, so other
                // callers do not share them.
                Err(
                    error @ (LlmError::TimedOut { .. }
                    | LlmError::QueueFull { .. }
                    | LlmError::QuotaExhausted(_)),
                ) => Err(error),
                outcome => {
                    if let Ok(response) = &outcome {
                        self.store_response(request, response).await;
                    }
                    Ok(outcome)
                }
            }
        };
        let outcome = match in_flight.outcome.get_or_try_init(|| lead).await {
            Ok(outcome) => outcome.clone(),
            Err(error) => Err(error),
        };
        (outcome, !made_call)
    }
}

#[async_trait]
impl LanguageModel for CachedLanguageModel {
    async fn request_completion(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let began = Instant::now();
        let mark_cached = |response| LlmResponse {
            cached: true,
            waiting_time: began.elapsed(),
            provider_time: Duration::ZERO,
            ..response
        };
        if let Some(response) = self.find_cached_response(&request).await {
            self.metrics.hits.increment(1);
            return Ok(mark_cached(response));
        }
        let request_timeout = request.timeout;
        // The router's timeout expires first because its error names the providers that failed.
        let joined = timeout(
            request_timeout.saturating_add(DEADLINE_MARGIN),
            self.send_or_join_request(&request, began),
        )
        .await;
        match joined {
            Ok((outcome, true)) => {
                self.metrics.shared.increment(1);
                outcome.map(mark_cached)
            }
            Ok((outcome, false)) => {
                self.metrics.misses.increment(1);
                outcome
            }
            Err(_elapsed) => Err(LlmError::TimedOut {
                seconds: request_timeout.as_secs(),
                faults: Vec::new(),
            }),
        }
    }

    fn supports_images(&self) -> bool {
        self.router.supports_images()
    }

    fn failing_providers_if_all_fail(&self, image: bool) -> Vec<ProviderFailureInfo> {
        self.router.failing_providers_if_all_fail(image)
    }

    fn useful_concurrency(&self) -> u32 {
        self.router.useful_concurrency()
    }

    async fn clear_tenant_cache(&self, tenant: &TenantId) -> Result<(), StorageError> {
        match &self.cache {
            Some(cache) => cache.remove_cached_tenant_responses(tenant).await,
            None => Ok(()),
        }
    }

    async fn clear_document_cache(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        match &self.cache {
            Some(cache) => cache.remove_cached_document_responses(tenant, document).await,
            None => Ok(()),
        }
    }

    async fn wait_for_tenant_queue_space(&self, tenant: &TenantId) {
        self.router.wait_for_tenant_queue_space(tenant).await;
    }
}

/// Returns the cache key of a request to one model, or to any model if `model` is `None`.
fn compute_cache_key(request: &LlmRequest, model: Option<&str>) -> ResponseCacheKey {
    let mut hash = Sha256::new();
    // Each part is prefixed with its length, so that different requests cannot have the same bytes.
    let mut part = |part: Option<&[u8]>| match part {
        None => hash.update([0]),
        Some(bytes) => {
            hash.update([1]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
    };
    part(Some(CACHE_KEY_VERSION));
    part(Some(request.scheduling.tenant.as_str().as_bytes()));
    part(model.map(str::as_bytes));
    part(Some(request.kind.name().as_bytes()));
    part(request.system_prompt.as_deref().map(str::as_bytes));
    part(Some(request.prompt.as_bytes()));
    part(Some(request.text.as_bytes()));
    part(request.image.as_ref().map(|image| image.media_type.as_bytes()));
    let image = request.image.as_ref().map(|image| Sha256::digest(&image.bytes));
    part(image.as_ref().map(AsRef::as_ref));
    part(Some(&request.max_response_tokens.to_be_bytes()));
    hash.finalize().into()
}
