//! The response cache, and equal requests in flight.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep};
use weir_core::llm::{
    LanguageModel, LlmError, LlmRequest, LlmRequestKind, LlmResponse, ProviderError, ResponseCache,
    ResponseCacheKey,
};
use weir_core::page::EncodedImage;
use weir_core::{DocumentId, StorageError, TenantId};
use weir_llm::{CachedLanguageModel, MemoryResponseCache, Router, RouterConfig};

use crate::fake_provider::{FakeProvider, account_of, build_request, options_with_concurrency, server_error};

fn cached_model(
    fakes: &[&Arc<FakeProvider>],
    cache: Option<Arc<dyn ResponseCache>>,
) -> Arc<CachedLanguageModel> {
    let providers = fakes
        .iter()
        .map(|fake| fake.provider_entry(options_with_concurrency(4)))
        .collect();
    let config = RouterConfig {
        fail_when_unavailable: true,
        ..RouterConfig::default()
    };
    Arc::new(CachedLanguageModel::new(Router::new(providers, config), cache))
}

fn memory_cache() -> Arc<dyn ResponseCache> {
    Arc::new(MemoryResponseCache::new(1 << 20))
}

#[tokio::test(start_paused = true)]
async fn repeated_job_makes_no_calls() {
    let (fake, cache) = (FakeProvider::succeeding("m", 1.0), memory_cache());
    let first = cached_model(&[&fake], Some(Arc::clone(&cache)));
    join_all((0..20).map(|i| first.request_completion(build_request(format!("{i}"))))).await;
    // A second router with the same cache, as after a restart.
    let again = cached_model(&[&fake], Some(cache));
    let began = Instant::now();
    for (i, response) in join_all((0..20).map(|i| again.request_completion(build_request(format!("{i}")))))
        .await
        .into_iter()
        .enumerate()
    {
        let response = response.unwrap();
        assert_eq!(
            (response.text, response.cached, response.provider_time),
            (i.to_string(), true, Duration::ZERO)
        );
    }
    assert_eq!((fake.call_count(), began.elapsed()), (20, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn cache_key_covers_every_input_of_the_response() {
    let fake = FakeProvider::succeeding("m", 1.0);
    let model = cached_model(&[&fake], Some(memory_cache()));
    let base = build_request("text");
    let variants = [
        base.clone(),
        LlmRequest {
            prompt: "Of that: {text}".into(),
            ..base.clone()
        },
        LlmRequest {
            text: "tex".into(),
            prompt: "Of this: {text}t".into(),
            ..base.clone()
        },
        LlmRequest {
            max_response_tokens: 99,
            ..base.clone()
        },
        LlmRequest {
            system_prompt: Some(String::new()),
            ..base.clone()
        },
        LlmRequest {
            scheduling: account_of("other", 1.0),
            ..base.clone()
        },
        LlmRequest {
            kind: weir_core::llm::LlmRequestKind::Title,
            ..base.clone()
        },
    ];
    for variant in variants.iter().chain(&variants) {
        model.request_completion(variant.clone()).await.unwrap();
    }
    assert_eq!(fake.call_count(), variants.len());
    // Timeout and weight do not change the response, so they are not part of the key.
    let mut same = base.clone();
    (same.timeout, same.scheduling.tenant_weight) = (Duration::from_secs(5), 7.0);
    assert!(model.request_completion(same).await.unwrap().cached);
    let image = LlmRequest {
        image: Some(EncodedImage {
            media_type: "image/jpeg",
            bytes: Arc::from(*b"x"),
        }),
        ..base
    };
    assert_eq!(
        model.request_completion(image).await.unwrap_err().kind(),
        "llm-unavailable"
    );
}

#[tokio::test(start_paused = true)]
async fn concurrent_equal_requests_share_one_call() {
    let fake = FakeProvider::succeeding("m", 10.0);
    let model = cached_model(&[&fake], None);
    let same = join_all((0..30).map(|_| model.request_completion(build_request("same")))).await;
    assert_eq!(fake.call_count(), 1);
    assert_eq!(
        same.iter()
            .filter(|response| response.as_ref().unwrap().cached)
            .count(),
        29
    );
    // Without a cache, a later request makes another call.
    model.request_completion(build_request("same")).await.unwrap();
    assert_eq!(fake.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn dropped_or_timed_out_caller_does_not_fail_the_others() {
    let fake = FakeProvider::succeeding("m", 10.0);
    let model = cached_model(&[&fake], None);
    let leader = tokio::spawn({
        let model = Arc::clone(&model);
        async move { model.request_completion(build_request("same")).await }
    });
    sleep(Duration::from_secs(1)).await;
    let follower = tokio::spawn({
        let model = Arc::clone(&model);
        async move { model.request_completion(build_request("same")).await }
    });
    sleep(Duration::from_secs(1)).await;
    leader.abort();
    assert_eq!(follower.await.unwrap().unwrap().text, "same");
    assert_eq!(fake.call_count(), 2);

    // The second caller takes over after the first one's timeout, and the third one's own timeout applies while it waits.
    let short = LlmRequest {
        timeout: Duration::from_secs(3),
        ..build_request("late")
    };
    let began = Instant::now();
    let (first, second, third) = tokio::join!(
        model.request_completion(short.clone()),
        model.request_completion(build_request("late")),
        model.request_completion(short),
    );
    assert_eq!(first.unwrap_err().kind(), "llm-timeout");
    assert_eq!(third.unwrap_err().kind(), "llm-timeout");
    assert_eq!(
        (second.unwrap().text.as_str(), began.elapsed().as_secs()),
        ("late", 13)
    );
}

#[tokio::test(start_paused = true)]
async fn failure_is_shared_and_not_cached() {
    let fake = FakeProvider::failing_first("m", std::iter::repeat_n(server_error(), 3));
    let model = cached_model(&[&fake], Some(memory_cache()));
    let same = join_all((0..10).map(|_| model.request_completion(build_request("same")))).await;
    assert!(
        same.iter()
            .all(|response| response.as_ref().unwrap_err().kind() == "llm-down")
    );
    assert_eq!(fake.call_count(), 3);
    assert_eq!(
        model
            .request_completion(build_request("same"))
            .await
            .unwrap()
            .text,
        "same"
    );
}

#[tokio::test(start_paused = true)]
async fn cached_response_of_any_provider_is_found() {
    let (first, second) = (
        FakeProvider::always_failing("first", server_error()),
        FakeProvider::succeeding("second", 1.0),
    );
    let model = cached_model(&[&first, &second], Some(memory_cache()));
    assert_eq!(
        model.request_completion(build_request("x")).await.unwrap().model,
        "second"
    );
    let calls_before = first.call_count();
    let again = model.request_completion(build_request("x")).await.unwrap();
    assert_eq!(
        (again.cached, again.model.as_str(), first.call_count()),
        (true, "second", calls_before)
    );
}

/// A cache whose storage is full.
struct FailingCache;

#[async_trait]
impl ResponseCache for FailingCache {
    async fn get_cached_response(
        &self,
        _: &TenantId,
        _: &ResponseCacheKey,
    ) -> Result<Option<LlmResponse>, StorageError> {
        Err(StorageError::NoSpace {
            what: "answers".into(),
        })
    }

    async fn put_cached_response(
        &self,
        _: &TenantId,
        _: &ResponseCacheKey,
        _: Option<&DocumentId>,
        _: &LlmResponse,
    ) -> Result<(), StorageError> {
        Err(StorageError::NoSpace {
            what: "answers".into(),
        })
    }

    async fn remove_cached_document_responses(
        &self,
        _: &TenantId,
        _: &DocumentId,
    ) -> Result<(), StorageError> {
        Ok(())
    }

    async fn remove_cached_tenant_responses(&self, _: &TenantId) -> Result<(), StorageError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn failing_cache_does_not_fail_requests() {
    let fake = FakeProvider::succeeding("m", 1.0);
    let model = cached_model(&[&fake], Some(Arc::new(FailingCache)));
    for _ in 0..2 {
        assert_eq!(
            model.request_completion(build_request("x")).await.unwrap().text,
            "x"
        );
    }
    assert_eq!(fake.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn refusal_is_an_error_and_is_not_cached() {
    const REFUSAL_TEXT: &str = "I'm sorry, but I can't assist with that.";
    let fake = FakeProvider::succeeding("m", 1.0);
    let model = cached_model(&[&fake], Some(memory_cache()));
    let request = |kind| LlmRequest {
        kind,
        ..build_request(REFUSAL_TEXT)
    };
    for tries in 1..=2 {
        let error = model
            .request_completion(request(LlmRequestKind::Page))
            .await
            .unwrap_err();
        assert_eq!(
            error,
            LlmError::AllProvidersFailed(vec![("m".into(), ProviderError::Declined)])
        );
        assert_eq!(fake.call_count(), tries);
    }
    let response = model
        .request_completion(request(LlmRequestKind::Component))
        .await
        .unwrap();
    assert_eq!(response.text, REFUSAL_TEXT);
}
