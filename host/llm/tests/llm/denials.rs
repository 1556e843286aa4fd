//! Providers that deny requests, and the report of failing providers, in virtual time.

use std::io::Write as _;

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep};
use weir_core::llm::{LanguageModel, LlmError, ProviderError};
use weir_llm::{
    OpenAiConfig, OpenAiProvider, Provider as _, ProviderApiKey, ProviderOptions, Router, RouterConfig,
};

use crate::fake_endpoint::{EndpointBehavior, FakeEndpoint};
use crate::fake_provider::{
    FakeProvider, build_request, denied_error, options_with_concurrency, server_error, waiting_router_config,
};

/// A provider that denies requests for the given time and answers afterwards.
fn provider_denying_for(seconds: u64) -> std::sync::Arc<FakeProvider> {
    let began = Instant::now();
    FakeProvider::new("far", move |_, _| {
        let denies = began.elapsed() < Duration::from_secs(seconds);
        (
            Duration::from_secs(1),
            if denies { Err(denied_error()) } else { Ok(()) },
        )
    })
}

#[tokio::test(start_paused = true)]
async fn denied_requests_fail_at_once_and_are_not_repeated() {
    let far = provider_denying_for(1_000_000);
    let router = Router::new(
        vec![far.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let began = Instant::now();
    let outcomes = join_all((0..100).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (
                "llm-denied",
                "no language model responds: far: authentication failed (401): wrong key; check llm.provider.far.key_env or \
                 key_file"
            )
        );
    }
    assert_eq!(far.call_count(), 4, "only the calls that were in flight together");
    assert_eq!(router.stats().providers[0].state, "denied");
    assert!(
        router.failing_providers_if_all_fail(false).is_empty(),
        "no request waits for it"
    );
}

#[tokio::test(start_paused = true)]
async fn denied_provider_is_called_again_after_the_cooldown() {
    let far = provider_denying_for(90);
    let router = Router::new(
        vec![far.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    router.request_completion(build_request("a")).await.unwrap_err();
    sleep(Duration::from_secs(61)).await;
    // One call finds that the provider still denies requests; the other requests fail without a call.
    let outcomes = join_all((0..10).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(far.call_count(), 2);
    sleep(Duration::from_secs(61)).await;
    let outcomes = join_all((0..10).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(router.stats().providers[0].state, "closed");
}

#[tokio::test(start_paused = true)]
async fn denial_cooldown_is_configurable() {
    let far = provider_denying_for(1_000_000);
    let short = RouterConfig {
        denial_cooldown: Duration::from_secs(2),
        ..waiting_router_config()
    };
    let router = Router::new(vec![far.provider_entry(options_with_concurrency(4))], short);
    router.request_completion(build_request("a")).await.unwrap_err();
    sleep(Duration::from_secs(3)).await;
    router.request_completion(build_request("b")).await.unwrap_err();
    assert_eq!(far.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_providers_replace_a_denied_one() {
    let far = provider_denying_for(1_000_000);
    let fallback = FakeProvider::succeeding("spare", 1.0);
    let fallback_options = ProviderOptions {
        is_fallback: true,
        ..options_with_concurrency(4)
    };
    let router = Router::new(
        vec![
            far.provider_entry(options_with_concurrency(1)),
            fallback.provider_entry(fallback_options),
        ],
        waiting_router_config(),
    );
    let responses = join_all((0..20).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    assert!(
        responses
            .iter()
            .all(|response| response.as_ref().unwrap().provider == "spare")
    );
    assert_eq!((far.call_count(), fallback.call_count()), (1, 20));
}

#[tokio::test(start_paused = true)]
async fn outage_of_another_provider_is_waited_for_despite_a_denial() {
    let began = Instant::now();
    let near = FakeProvider::new("near", move |_, _| {
        let outage = began.elapsed() < Duration::from_secs(1000);
        (
            Duration::from_secs(1),
            if outage { Err(server_error()) } else { Ok(()) },
        )
    });
    let far = provider_denying_for(1_000_000);
    let router = Router::new(
        vec![
            near.provider_entry(options_with_concurrency(1)),
            far.provider_entry(options_with_concurrency(1)),
        ],
        waiting_router_config(),
    );
    let requests = join_all((0..5).map(|i| router.request_completion(build_request(format!("{i}")))));
    let watched = async {
        sleep(Duration::from_secs(500)).await;
        router.failing_providers_if_all_fail(false)
    };
    let (responses, failing) = tokio::join!(requests, watched);
    for response in responses {
        assert_eq!(response.unwrap().provider, "near");
    }
    let failing: Vec<_> = failing
        .iter()
        .map(|f| (f.provider.as_str(), f.error.kind.as_str()))
        .collect();
    assert_eq!(failing, [("near", "server-error")]);
    // With `fail_when_unavailable`, the request fails with the errors of both providers.
    let both = RouterConfig {
        fail_when_unavailable: true,
        ..waiting_router_config()
    };
    let near = FakeProvider::always_failing("near", server_error());
    let router = Router::new(
        vec![
            near.provider_entry(options_with_concurrency(1)),
            far.provider_entry(options_with_concurrency(1)),
        ],
        both,
    );
    let error = router.request_completion(build_request("a")).await.unwrap_err();
    assert!(
        matches!(&error, LlmError::AllProvidersFailed(faults) if faults.len() == 2),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn failing_provider_is_reported_with_since_and_last_error() {
    let began = Instant::now();
    let only = FakeProvider::new("only", move |_, _| {
        let outage = (50..150).contains(&began.elapsed().as_secs());
        (
            Duration::from_secs(1),
            if outage {
                Err(ProviderError::ResponseInterrupted)
            } else {
                Ok(())
            },
        )
    });
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let requests = join_all((0..800).map(|i| router.request_completion(build_request(format!("{i}")))));
    let watched = async {
        let mut seen = Vec::new();
        for _ in 0..100 {
            sleep(Duration::from_secs(5)).await;
            seen.push((
                began.elapsed().as_secs(),
                router.failing_providers_if_all_fail(false),
            ));
        }
        seen
    };
    let (_, seen) = tokio::join!(requests, watched);
    assert!(
        seen.iter().all(|(at, failing)| *at >= 55 || failing.is_empty()),
        "{seen:?}"
    );
    let (_, first) = seen
        .iter()
        .find(|(_, failing)| !failing.is_empty())
        .expect("it is reported");
    assert_eq!(
        (first.len(), first[0].error.message.as_str()),
        (1, "closed the connection in the middle of its response")
    );
    assert!(seen.last().unwrap().1.is_empty(), "it answers again: {seen:?}");
    assert!(
        router.failing_providers_if_all_fail(true).is_empty(),
        "it takes no images"
    );
}

#[tokio::test]
async fn changed_key_file_is_used_by_the_next_call() {
    let endpoint = FakeEndpoint::with_behavior(EndpointBehavior::Answer).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "first").unwrap();
    let provider = OpenAiProvider::new(OpenAiConfig {
        api_key: Some(ProviderApiKey::new("first").unwrap()),
        key_file: Some(file.path().to_owned()),
        ..endpoint.openai_config()
    })
    .unwrap();
    provider.call_model(&build_request("a")).await.unwrap();
    std::fs::write(file.path(), "second\n").unwrap();
    provider.call_model(&build_request("b")).await.unwrap();
    file.close().unwrap();
    provider.call_model(&build_request("c")).await.unwrap();
    let seen = endpoint.log.requests.lock();
    let keys: Vec<_> = seen
        .iter()
        .map(|request| request.authorization.clone().unwrap())
        .collect();
    assert_eq!(keys, ["Bearer first", "Bearer second", "Bearer second"]);
}
