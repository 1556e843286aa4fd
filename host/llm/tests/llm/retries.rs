//! Failing providers in virtual time: which requests are retried, where, how often and for how long.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep};
use weir_core::llm::{LanguageModel, LlmError, ProviderError};
use weir_llm::{ProviderOptions, Router, RouterConfig, check_providers};

use crate::fake_provider::{
    FakeProvider, build_request, denied_error, options_with_concurrency, server_error, waiting_router_config,
};

fn failing_router_config() -> RouterConfig {
    RouterConfig {
        fail_when_unavailable: true,
        ..waiting_router_config()
    }
}

fn rate_limited_error(seconds: Option<u64>) -> ProviderError {
    ProviderError::RateLimited {
        after: seconds.map(Duration::from_secs),
    }
}

#[tokio::test(start_paused = true)]
async fn provider_is_retried_before_the_next_one_is_called() {
    let first = FakeProvider::failing_first("first", [server_error(), ProviderError::ResponseInterrupted]);
    let second = FakeProvider::succeeding("second", 1.0);
    let router = Router::new(
        vec![
            first.provider_entry(options_with_concurrency(4)),
            second.provider_entry(options_with_concurrency(4)),
        ],
        waiting_router_config(),
    );
    let response = router.request_completion(build_request("a")).await.unwrap();
    assert_eq!(
        (
            response.provider.as_str(),
            first.call_count(),
            second.call_count()
        ),
        ("first", 3, 0)
    );
    assert_eq!(response.provider_time.as_secs(), 3);

    let first = FakeProvider::always_failing("first", server_error());
    let router = Router::new(
        vec![
            first.provider_entry(options_with_concurrency(4)),
            second.provider_entry(options_with_concurrency(4)),
        ],
        waiting_router_config(),
    );
    let response = router.request_completion(build_request("b")).await.unwrap();
    assert_eq!(
        (
            response.provider.as_str(),
            first.call_count(),
            second.call_count()
        ),
        ("second", 3, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_retried() {
    for (fault, elsewhere) in [
        (denied_error(), true),
        (
            ProviderError::RequestRejected {
                status: 400,
                reason: "long".into(),
            },
            true,
        ),
        (
            ProviderError::ContextTooLong {
                needed: 9,
                context_tokens: 8,
            },
            true,
        ),
        (ProviderError::NoOutput, true),
        (ProviderError::ContentFiltered, true),
        (ProviderError::Declined, true),
        (ProviderError::PromptEcho, true),
        (ProviderError::Repetition, true),
        (ProviderError::TokenLimitReached, false),
    ] {
        let first = FakeProvider::always_failing("first", fault.clone());
        let second = FakeProvider::succeeding("second", 1.0);
        let router = Router::new(
            vec![
                first.provider_entry(options_with_concurrency(4)),
                second.provider_entry(options_with_concurrency(4)),
            ],
            waiting_router_config(),
        );
        let outcome = router.request_completion(build_request("a")).await;
        assert_eq!(
            (first.call_count(), second.call_count()),
            (1, usize::from(elsewhere)),
            "{fault:?}"
        );
        if !elsewhere {
            assert_eq!(outcome.unwrap_err().to_string(), "first exceeded its token limit");
        }
    }
    // If all providers reject the request, it does not wait.
    let only = FakeProvider::always_failing(
        "only",
        ProviderError::RequestRejected {
            status: 400,
            reason: "long".into(),
        },
    );
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let error = router.request_completion(build_request("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no language model responds: only rejected the request with status 400: long"
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_delays_all_requests() {
    let only = FakeProvider::failing_first("only", [rate_limited_error(Some(20))]);
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(1))],
        waiting_router_config(),
    );
    let began = Instant::now();
    let responses = join_all((0..5).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    assert!(responses.iter().all(Result::is_ok));
    let calls: Vec<_> = only
        .recorded_calls()
        .iter()
        .map(|(at, _)| at.duration_since(began).as_secs())
        .collect();
    assert_eq!(
        calls,
        [0, 21, 22, 23, 24, 25],
        "one second of the first call, then a pause of 20 s"
    );
}

#[tokio::test(start_paused = true)]
async fn rate_limited_provider_is_replaced_at_once() {
    let first = FakeProvider::always_failing("first", rate_limited_error(Some(600)));
    let second = FakeProvider::succeeding("second", 1.0);
    let router = Router::new(
        vec![
            first.provider_entry(options_with_concurrency(4)),
            second.provider_entry(options_with_concurrency(4)),
        ],
        waiting_router_config(),
    );
    let began = Instant::now();
    let response = router.request_completion(build_request("a")).await.unwrap();
    assert_eq!(
        (response.provider.as_str(), began.elapsed().as_secs()),
        ("second", 2)
    );
    assert_eq!(first.call_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn backoff_grows_without_retry_after() {
    let only = FakeProvider::failing_first("only", std::iter::repeat_n(rate_limited_error(None), 12));
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let response = router.request_completion(build_request("a")).await.unwrap();
    assert_eq!(only.call_count(), 13);
    assert!(
        response.waiting_time > Duration::from_secs(30),
        "{:?}",
        response.waiting_time
    );
}

#[tokio::test(start_paused = true)]
async fn request_fails_or_waits_when_all_providers_are_down() {
    let providers = || {
        let near =
            FakeProvider::always_failing("near", ProviderError::Unreachable("connection refused".into()));
        let far = FakeProvider::always_failing("far", server_error());
        vec![
            near.provider_entry(options_with_concurrency(4)),
            far.provider_entry(options_with_concurrency(4)),
        ]
    };
    let router = Router::new(providers(), failing_router_config());
    let error = router.request_completion(build_request("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no language model responds: near cannot be reached: connection refused; far failed with status 500: down"
    );
    // Once both breakers are open, no call is made.
    let _ = join_all((0..20).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    let calls: u64 = router.stats().providers.iter().map(|p| p.total_calls).sum();
    let began = Instant::now();
    let error = router.request_completion(build_request("b")).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), ("llm-down", Duration::ZERO));
    assert!(
        error.to_string().contains("near") && error.to_string().contains("far"),
        "{error}"
    );
    assert_eq!(
        router
            .stats()
            .providers
            .iter()
            .map(|p| p.total_calls)
            .sum::<u64>(),
        calls
    );

    let router = Router::new(providers(), waiting_router_config());
    let mut hour = build_request("a");
    hour.timeout = Duration::from_secs(3600);
    let began = Instant::now();
    let error = router.request_completion(hour).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), ("llm-timeout", 3600));
    assert!(
        error.to_string().contains("near") && error.to_string().contains("far"),
        "{error}"
    );
    let calls: u64 = router.stats().providers.iter().map(|p| p.total_calls).sum();
    assert!(calls < 80, "an outage of an hour causes few calls: {calls}");
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_succeed_when_a_provider_recovers() {
    let began = Instant::now();
    let only = FakeProvider::new("only", move |_, _| {
        let down_yet = began.elapsed() < Duration::from_secs(1000);
        (
            Duration::from_secs(1),
            if down_yet { Err(server_error()) } else { Ok(()) },
        )
    });
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let responses = join_all((0..50).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    for (i, response) in responses.into_iter().enumerate() {
        assert_eq!(response.unwrap().text, i.to_string());
    }
    // The breaker is open for 120, then 240, 480 and 960 seconds.
    assert!(
        began.elapsed() < Duration::from_secs(2200),
        "{:?}",
        began.elapsed()
    );
    let stats = router.stats().providers.remove(0);
    assert!(stats.breaker_openings <= 4 && stats.failures < 40, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn timed_out_requests_release_calls_and_queue_entries() {
    let only = FakeProvider::hanging("only");
    let router = Arc::new(Router::new(
        vec![only.provider_entry(options_with_concurrency(2))],
        waiting_router_config(),
    ));
    let requests = (0..10).map(|i| {
        let mut request = build_request(format!("{i}"));
        request.timeout = Duration::from_secs(10 + i);
        router.request_completion(request)
    });
    let began = Instant::now();
    let errors = join_all(requests).await;
    assert_eq!(began.elapsed().as_secs(), 19);
    assert!(errors.iter().all(|e| matches!(e, Err(LlmError::TimedOut { .. }))));
    let busy = errors[9].as_ref().unwrap_err().to_string();
    assert_eq!(busy, "no response within 19 s: all language models were busy");
    assert_eq!(only.in_flight(), 0);
    let stats = router.stats();
    assert_eq!(
        (stats.queued_requests, stats.providers[0].calls_in_flight),
        (0, 0)
    );
    assert_eq!(stats.providers[0].dropped_calls, only.call_count() as u64);
}

#[tokio::test(start_paused = true)]
async fn dropped_request_releases_its_call_and_queue_entry() {
    let only = FakeProvider::succeeding("only", 10.0);
    let router = Arc::new(Router::new(
        vec![only.provider_entry(options_with_concurrency(2))],
        waiting_router_config(),
    ));
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let router = Arc::clone(&router);
            tokio::spawn(async move { router.request_completion(build_request(format!("{i}"))).await })
        })
        .collect();
    sleep(Duration::from_secs(5)).await;
    assert_eq!((router.stats().queued_requests, only.in_flight()), (18, 2));
    for task in &tasks[..19] {
        task.abort();
    }
    let began = Instant::now();
    let response = tasks.into_iter().next_back().unwrap().await.unwrap().unwrap();
    assert_eq!((response.text.as_str(), began.elapsed().as_secs()), ("19", 10));
    assert_eq!((router.stats().queued_requests, only.call_count()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn fallback_provider_is_called_only_when_needed() {
    let began = Instant::now();
    let usual = FakeProvider::new("usual", move |_, _| {
        let down_now = (100..150).contains(&began.elapsed().as_secs());
        (
            Duration::from_secs(1),
            if down_now { Err(server_error()) } else { Ok(()) },
        )
    });
    let fallback = FakeProvider::succeeding("spare", 1.0);
    let fallback_options = ProviderOptions {
        is_fallback: true,
        ..options_with_concurrency(4)
    };
    // The fallback comes first in the settings and is still called only when needed.
    let router = Router::new(
        vec![
            fallback.provider_entry(fallback_options),
            usual.provider_entry(options_with_concurrency(4)),
        ],
        waiting_router_config(),
    );
    let _ = join_all((0..2000).map(|i| {
        let router = &router;
        async move {
            sleep(Duration::from_millis(i * 500)).await;
            router
                .request_completion(build_request(format!("{i}")))
                .await
                .unwrap()
        }
    }))
    .await;
    let asked: Vec<u64> = fallback
        .recorded_calls()
        .iter()
        .map(|(at, _)| at.duration_since(began).as_secs())
        .collect();
    assert!(asked.iter().all(|at| (100..240).contains(at)), "{asked:?}");
    assert!(asked.len() > 150, "{}", asked.len());
    assert_eq!(router.stats().providers[1].breaker_openings, 1);
}

#[tokio::test(start_paused = true)]
async fn each_provider_is_checked_separately() {
    let providers = [
        FakeProvider::succeeding("well", 2.0).provider_entry(options_with_concurrency(1)),
        FakeProvider::always_failing("verbose", ProviderError::TokenLimitReached)
            .provider_entry(options_with_concurrency(1)),
        FakeProvider::always_failing("down", server_error()).provider_entry(options_with_concurrency(1)),
        FakeProvider::hanging("silent").provider_entry(options_with_concurrency(1)),
    ];
    let found = check_providers(&providers).await;
    let found: Vec<String> = found
        .into_iter()
        .map(|one| match one.outcome {
            Ok(took) => format!("{} {} s", one.name, took.as_secs()),
            Err(fault) => format!("{} {fault}", one.name),
        })
        .collect();
    let expected = [
        "well 2 s",
        "verbose 1 s",
        "down failed with status 500: down",
        "silent did not respond within 30 s",
    ];
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn request_that_always_fails_while_others_succeed_is_given_up() {
    let broken = || ProviderError::ServerError {
        status: 500,
        reason: "cannot decode the image".into(),
        after: None,
    };
    let only = FakeProvider::new("only", move |request, _| {
        let outcome = if request.text == "bad" {
            Err(broken())
        } else {
            Ok(())
        };
        (Duration::from_secs(1), outcome)
    });
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let others = async {
        for i in 0..600 {
            router
                .request_completion(build_request(format!("{i}")))
                .await
                .unwrap();
        }
    };
    let (outcome, ()) = tokio::join!(router.request_completion(build_request("bad")), others);
    assert_eq!(
        outcome.unwrap_err().to_string(),
        "no language model responds: only failed with status 500: cannot decode the image"
    );
    let call_count = only
        .recorded_calls()
        .iter()
        .filter(|(_, text)| text == "bad")
        .count();
    assert_eq!(call_count, 12);
    // While no other request succeeds, the cause may be an outage, so the request waits.
    let mut alone = build_request("bad");
    alone.timeout = Duration::from_secs(1000);
    let error = router.request_completion(alone).await.unwrap_err();
    assert!(matches!(error, LlmError::TimedOut { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn fallback_answers_only_requests_that_all_others_failed() {
    let first = FakeProvider::new("first", |request, _| {
        let outcome = if request.text == "bad" {
            Err(ProviderError::Repetition)
        } else {
            Ok(())
        };
        (Duration::from_secs(1), outcome)
    });
    let fallback = FakeProvider::succeeding("spare", 1.0);
    let fallback_options = ProviderOptions {
        is_fallback: true,
        ..options_with_concurrency(4)
    };
    let router = Router::new(
        vec![
            first.provider_entry(options_with_concurrency(1)),
            fallback.provider_entry(fallback_options),
        ],
        waiting_router_config(),
    );
    let texts = (0..20).map(|i| if i == 7 { "bad".into() } else { format!("{i}") });
    let responses = join_all(texts.map(|text| router.request_completion(build_request(text)))).await;
    let by_fallback: Vec<_> = responses
        .iter()
        .map(|response| response.as_ref().unwrap())
        .filter(|response| response.provider == "spare")
        .map(|response| response.text.as_str())
        .collect();
    assert_eq!(
        (by_fallback, first.call_count(), fallback.call_count()),
        (vec!["bad"], 20, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn invalid_response_is_billed_and_not_counted_as_a_failure() {
    let only = FakeProvider::succeeding("only", 1.0);
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let error = router
        .request_completion(build_request("I'm sorry, but I can't assist with that."))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        LlmError::AllProvidersFailed(vec![("only".into(), ProviderError::Declined)])
    );
    let stats = &router.stats().providers[0];
    assert_eq!(
        (
            stats.total_calls,
            stats.failures,
            stats.prompt_tokens,
            stats.completion_tokens
        ),
        (1, 0, 1000, 100)
    );
}
