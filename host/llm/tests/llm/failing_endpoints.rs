//! The router with real endpoints that fail in every known way, in real time.

use std::time::{Duration, Instant};

use futures::future::join_all;
use weir_core::llm::{LanguageModel, LlmError, LlmRequest};
use weir_llm::{BreakerConfig, ProviderEntry, ProviderOptions, Router, RouterConfig};

use crate::fake_endpoint::{EndpointBehavior, FakeEndpoint, request_text};
use crate::fake_provider::{build_request, options_with_concurrency};

/// Minimum time for which a breaker stays open.
const OPEN_DURATION: Duration = Duration::from_millis(500);

fn router_config() -> RouterConfig {
    RouterConfig {
        first_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_millis(100),
        breaker: Some(BreakerConfig {
            open_duration: OPEN_DURATION,
            ..BreakerConfig::default()
        }),
        ..RouterConfig::default()
    }
}

fn provider_entry(name: &str, endpoint: &FakeEndpoint, concurrency: u32) -> ProviderEntry {
    ProviderEntry {
        name: name.into(),
        provider: std::sync::Arc::new(endpoint.openai_provider()),
        options: ProviderOptions {
            call_timeout: Duration::from_millis(800),
            ..options_with_concurrency(concurrency)
        },
    }
}

fn request_with_timeout(text: String, seconds: u64) -> LlmRequest {
    LlmRequest {
        timeout: Duration::from_secs(seconds),
        ..build_request(text)
    }
}

/// Each kind of failure in turn.
fn failure_number(number: usize) -> EndpointBehavior {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    match number % 12 {
        0 => EndpointBehavior::Status(429, vec![("retry-after", "0.1".into())], String::new()),
        1 => EndpointBehavior::Status(429, Vec::new(), String::new()),
        2 => EndpointBehavior::Status(500, Vec::new(), "broken".into()),
        3 => EndpointBehavior::Body("garbage".into()),
        4 => EndpointBehavior::HalfStream,
        5 => EndpointBehavior::Body(String::new()),
        6 => EndpointBehavior::Hangs,
        7 => EndpointBehavior::GoesSilent,
        8 => EndpointBehavior::HalfBody,
        9 => EndpointBehavior::Status(503, vec![("retry-after", date)], String::new()),
        10 => EndpointBehavior::Closes,
        _ => EndpointBehavior::Answer,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_succeed_beside_a_failing_provider() {
    // The endpoint recovers and fails again.
    let bad = FakeEndpoint::start(|number, _| {
        if (60..120).contains(&number) {
            EndpointBehavior::Answer
        } else {
            failure_number(number)
        }
    })
    .await;
    let good = FakeEndpoint::with_behavior(EndpointBehavior::AnswerAfter(Duration::from_millis(30))).await;
    let router = Router::new(
        vec![provider_entry("bad", &bad, 6), provider_entry("good", &good, 3)],
        router_config(),
    );
    let began = Instant::now();
    let responses = join_all(
        (0..400).map(|i| router.request_completion(request_with_timeout(format!("question {i}"), 60))),
    )
    .await;
    let took = began.elapsed();
    for (i, response) in responses.into_iter().enumerate() {
        assert_eq!(response.unwrap().text, format!("question {i}"));
    }
    assert!(
        bad.log.peak_in_flight() <= 6 && good.log.peak_in_flight() <= 3,
        "{} {}",
        bad.log.peak_in_flight(),
        good.log.peak_in_flight()
    );
    let stats = router.stats();
    let most = took.as_millis() / OPEN_DURATION.as_millis() + 1;
    println!(
        "{} ms, breaker opened {} times, at most {most}",
        took.as_millis(),
        stats.providers[0].breaker_openings
    );
    assert!(
        stats.providers[0].breaker_openings >= 1 && u128::from(stats.providers[0].breaker_openings) <= most,
        "{stats:?}"
    );
    assert_eq!(stats.providers[1].breaker_openings, 0);
    // A request that was answered is not sent again.
    let of_good = good.log.requests.lock();
    let mut texts: Vec<String> = of_good
        .iter()
        .map(|request| request_text(&request.body))
        .collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), of_good.len());
}

#[tokio::test]
async fn calls_per_minute_stay_within_the_limit() {
    let endpoint = FakeEndpoint::with_behavior(EndpointBehavior::Answer).await;
    let mut limited = provider_entry("limited", &endpoint, 4);
    limited.options.requests_per_minute = 20;
    let router = Router::new(vec![limited], router_config());
    let responses =
        join_all((0..30).map(|i| router.request_completion(request_with_timeout(format!("{i}"), 2)))).await;
    let answered = responses.iter().filter(|response| response.is_ok()).count();
    assert_eq!((answered, endpoint.log.request_count()), (20, 20));
    let late = responses
        .iter()
        .filter(|a| matches!(a, Err(LlmError::TimedOut { .. })))
        .count();
    assert_eq!(late, 10);
}

#[tokio::test]
async fn retry_after_header_is_honored() {
    let endpoint = FakeEndpoint::start(|number, _| match number {
        0 => EndpointBehavior::Status(429, vec![("retry-after", "1".into())], String::new()),
        _ => EndpointBehavior::Answer,
    })
    .await;
    let router = Router::new(vec![provider_entry("only", &endpoint, 1)], router_config());
    let _ =
        join_all((0..5).map(|i| router.request_completion(request_with_timeout(format!("{i}"), 10)))).await;
    let requests = endpoint.log.requests.lock();
    assert_eq!(requests.len(), 6);
    let rest = requests[1].received_at.duration_since(requests[0].received_at);
    assert!(rest >= Duration::from_millis(990), "{rest:?}");
}

#[tokio::test]
async fn request_fails_or_waits_while_all_providers_are_down() {
    let began = Instant::now();
    let near = FakeEndpoint::start(move |_, _| match began.elapsed() {
        early if early < Duration::from_millis(1500) => {
            EndpointBehavior::Status(500, Vec::new(), "not yet".into())
        }
        _ => EndpointBehavior::Answer,
    })
    .await;
    let far = FakeEndpoint::with_behavior(EndpointBehavior::Body("garbage".into())).await;
    let providers = || vec![provider_entry("near", &near, 4), provider_entry("far", &far, 4)];
    let failing = RouterConfig {
        fail_when_unavailable: true,
        ..router_config()
    };
    let error = Router::new(providers(), failing)
        .request_completion(request_with_timeout("x".into(), 30))
        .await
        .unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("near failed with status 500: not yet")
            && words.contains("far returned an invalid response"),
        "{words}"
    );
    let router = Router::new(providers(), router_config());
    let responses =
        join_all((0..20).map(|i| router.request_completion(request_with_timeout(format!("{i}"), 30)))).await;
    for (i, response) in responses.into_iter().enumerate() {
        let response = response.unwrap();
        assert_eq!(
            (response.text, response.provider.as_str()),
            (i.to_string(), "near")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_pages_of_three_seconds_take_five_workers_six_seconds() {
    let endpoint = FakeEndpoint::with_behavior(EndpointBehavior::AnswerAfter(Duration::from_secs(3))).await;
    let mut provider = provider_entry("sees", &endpoint, 5);
    provider.options.call_timeout = Duration::from_secs(30);
    let router = Router::new(vec![provider], RouterConfig::default());
    let began = Instant::now();
    let responses = join_all(
        (1..=10).map(|page| router.request_completion(request_with_timeout(format!("page {page}"), 60))),
    )
    .await;
    let seconds = began.elapsed().as_secs_f64();
    println!("10 pages of 3 s, 5 at a time: {seconds:.2} s");
    assert!(responses.iter().all(Result::is_ok));
    assert!((5.7..=6.3).contains(&seconds), "{seconds}");
    assert_eq!(endpoint.log.peak_in_flight(), 5);
}
