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

use crate::llm_metrics::CacheMetrics;
use crate::router::Router;
use crate::stats::RouterStats;

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
        let mut flights = self.in_flight.lock();
        if Arc::strong_count(&self.outcome) == 1 {
            flights.remove(&self.key);
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
    pub fn new(router: Router, kept: Option<Arc<dyn ResponseCache>>) -> Self {
        Self {
            router,
            cache: kept,
            in_flight: Mutex::default(),
            metrics: CacheMetrics::new(),
        }
    }

    /// The state of the providers.
    pub fn stats(&self) -> RouterStats {
        self.router.stats()
    }

    /// The router, which does not use the cache.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// Returns a cached response of any model that can answer the request.
    async fn find_cached_response(&self, question: &LlmRequest) -> Option<LlmResponse> {
        let kept = self.cache.as_ref()?;
        let sees = question.image.is_some();
        let tenant = &question.scheduling.tenant;
        for member in self
            .router
            .providers()
            .iter()
            .filter(|m| !sees || m.provider.supports_images())
        {
            let key = cache_key(question, Some(member.provider.model_name()));
            match kept.get_response(tenant, &key).await {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
                // A cache miss costs a repeated call and nothing else.
                Err(error) => tracing::warn!(%error, "cannot read the response cache"),
            }
        }
        None
    }

    async fn store_response(&self, question: &LlmRequest, answer: &LlmResponse) {
        let Some(kept) = &self.cache else { return };
        let key = cache_key(question, Some(&answer.model));
        let document = question.document.as_ref();
        let put = kept.put_response(&question.scheduling.tenant, &key, document, answer);
        if let Err(error) = put.await {
            tracing::warn!(%error, "cannot store a response in the cache");
        }
    }

    fn join_in_flight(&self, key: ResponseCacheKey) -> InFlightGuard<'_> {
        let mut flights = self.in_flight.lock();
        let under_way = flights.get(&key).and_then(Weak::upgrade);
        let flight = under_way.unwrap_or_else(|| {
            let flight = Arc::new(OnceCell::new());
            flights.insert(key, Arc::downgrade(&flight));
            flight
        });
        InFlightGuard {
            in_flight: &self.in_flight,
            key,
            outcome: flight,
        }
    }

    /// Sends the request, or waits for an equal request in flight. The flag is true if the outcome is shared.
    async fn send_or_share(&self, question: &LlmRequest, began: Instant) -> (RequestOutcome, bool) {
        let aboard = self.join_in_flight(cache_key(question, None));
        let mut asked = false;
        let lead = async {
            asked = true;
            let patience = question.timeout.saturating_sub(began.elapsed());
            let ask = LlmRequest {
                timeout: patience,
                ..question.clone()
            };
            match self.router.complete(ask).await {
                // These errors depend on this caller's timeout or on its tenant's queue or quota at that moment, so other
                // callers do not share them.
                Err(
                    error @ (LlmError::TimedOut { .. }
                    | LlmError::QueueFull { .. }
                    | LlmError::QuotaExhausted(_)),
                ) => Err(error),
                outcome => {
                    if let Ok(answer) = &outcome {
                        self.store_response(question, answer).await;
                    }
                    Ok(outcome)
                }
            }
        };
        let outcome = match aboard.outcome.get_or_try_init(|| lead).await {
            Ok(outcome) => outcome.clone(),
            Err(error) => Err(error),
        };
        (outcome, !asked)
    }
}

#[async_trait]
impl LanguageModel for CachedLanguageModel {
    async fn complete(&self, question: LlmRequest) -> Result<LlmResponse, LlmError> {
        let began = Instant::now();
        let given = |answer| LlmResponse {
            cached: true,
            waiting_time: began.elapsed(),
            provider_time: Duration::ZERO,
            ..answer
        };
        if let Some(answer) = self.find_cached_response(&question).await {
            self.metrics.hits.increment(1);
            return Ok(given(answer));
        }
        let patience = question.timeout;
        // The router's timeout expires first because its error names the providers that failed.
        let joined = timeout(
            patience.saturating_add(DEADLINE_MARGIN),
            self.send_or_share(&question, began),
        )
        .await;
        match joined {
            Ok((outcome, true)) => {
                self.metrics.shared.increment(1);
                outcome.map(given)
            }
            Ok((outcome, false)) => {
                self.metrics.misses.increment(1);
                outcome
            }
            Err(_elapsed) => Err(LlmError::TimedOut {
                seconds: patience.as_secs(),
                faults: Vec::new(),
            }),
        }
    }

    fn supports_images(&self) -> bool {
        self.router.supports_images()
    }

    fn failing_providers(&self, image: bool) -> Vec<ProviderFailureInfo> {
        self.router.failing_providers(image)
    }

    fn useful_concurrency(&self) -> u32 {
        self.router.useful_concurrency()
    }

    async fn clear_cache(&self, tenant: &TenantId) -> Result<(), StorageError> {
        match &self.cache {
            Some(kept) => kept.remove_tenant_responses(tenant).await,
            None => Ok(()),
        }
    }

    async fn clear_document_cache(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        match &self.cache {
            Some(kept) => kept.remove_document_responses(tenant, document).await,
            None => Ok(()),
        }
    }

    async fn wait_for_queue_space(&self, tenant: &TenantId) {
        self.router.wait_for_queue_space(tenant).await;
    }
}

/// Returns the cache key of a request to one model, or to any model if `model` is `None`.
fn cache_key(question: &LlmRequest, model: Option<&str>) -> ResponseCacheKey {
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
    part(Some(question.scheduling.tenant.as_str().as_bytes()));
    part(model.map(str::as_bytes));
    part(Some(question.kind.name().as_bytes()));
    part(question.system_prompt.as_deref().map(str::as_bytes));
    part(Some(question.prompt.as_bytes()));
    part(Some(question.text.as_bytes()));
    part(question.image.as_ref().map(|image| image.media_type.as_bytes()));
    let image = question.image.as_ref().map(|image| Sha256::digest(&image.bytes));
    part(image.as_ref().map(AsRef::as_ref));
    part(Some(&question.max_response_tokens.to_be_bytes()));
    hash.finalize().into()
}
