//! Fairness between tenants.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep, timeout};
use weir_core::llm::{LanguageModel, LlmError, LlmRequest, LlmRequestKind};
use weir_llm::{Router, RouterConfig};

use crate::fake_provider::{FakeProvider, account_of, build_request, options_with_concurrency};

fn request_of_tenant(tenant: &str, weight: f64, text: String) -> LlmRequest {
    LlmRequest {
        scheduling: account_of(tenant, weight),
        ..build_request(text)
    }
}

#[tokio::test(start_paused = true)]
async fn small_tenant_does_not_wait_behind_a_large_one() {
    let fake = FakeProvider::succeeding("only", 1.0);
    let router = Router::new(
        vec![fake.provider_entry(options_with_concurrency(4))],
        RouterConfig::default(),
    );
    let crowd = join_all(
        (0..400).map(|i| router.request_completion(request_of_tenant("crowd", 1.0, format!("crowd {i}")))),
    );
    let few = async {
        sleep(Duration::from_secs(20)).await;
        let began = Instant::now();
        let _ = join_all(
            (0..8).map(|i| router.request_completion(request_of_tenant("few", 1.0, format!("few {i}")))),
        )
        .await;
        began.elapsed().as_secs()
    };
    let (_, waited) = tokio::join!(crowd, few);
    assert!(waited <= 5, "8 requests with half of 4 calls: {waited} s");
}

#[tokio::test(start_paused = true)]
async fn page_request_goes_before_the_tenants_other_requests() {
    let fake = FakeProvider::succeeding("only", 1.0);
    let router = Router::new(
        vec![fake.provider_entry(options_with_concurrency(4))],
        RouterConfig::default(),
    );
    let other_requests = join_all(
        (0..400).map(|i| router.request_completion(request_of_tenant("one", 1.0, format!("chapter {i}")))),
    );
    let pages = async {
        sleep(Duration::from_millis(20_500)).await;
        let began = Instant::now();
        let page = |i| LlmRequest {
            kind: LlmRequestKind::Page,
            ..request_of_tenant("one", 1.0, format!("page {i}"))
        };
        let _ = join_all((0..8).map(|i| router.request_completion(page(i)))).await;
        began.elapsed()
    };
    let (_, waited) = tokio::join!(other_requests, pages);
    assert_eq!(
        waited,
        Duration::from_millis(2500),
        "8 pages, 4 calls, after those under way"
    );
}

#[tokio::test(start_paused = true)]
async fn capacity_is_shared_by_tenant_weight() {
    let fake = FakeProvider::succeeding("only", 1.0);
    let router = Router::new(
        vec![fake.provider_entry(options_with_concurrency(4))],
        RouterConfig::default(),
    );
    let light = join_all(
        (0..400).map(|i| router.request_completion(request_of_tenant("light", 1.0, format!("light {i}")))),
    );
    let heavy = join_all(
        (0..400).map(|i| router.request_completion(request_of_tenant("heavy", 3.0, format!("heavy {i}")))),
    );
    let both = async { tokio::join!(light, heavy) };
    let _ = timeout(Duration::from_millis(60_500), both).await;
    let calls = fake.recorded_calls();
    let heavy = calls.iter().filter(|(_, text)| text.starts_with("heavy")).count();
    let share = heavy as f64 / calls.len() as f64;
    assert!((share - 0.75).abs() < 0.03, "{share}");
}

#[tokio::test(start_paused = true)]
async fn full_queue_rejects_only_its_own_tenant() {
    let fake = FakeProvider::succeeding("only", 1.0);
    let config = RouterConfig {
        max_queued_per_tenant: 10,
        backpressure_threshold: 8,
        ..RouterConfig::default()
    };
    let router = Router::new(vec![fake.provider_entry(options_with_concurrency(1))], config);
    let crowd =
        join_all((0..20).map(|i| router.request_completion(request_of_tenant("crowd", 1.0, format!("{i}")))));
    let other = async {
        tokio::task::yield_now().await;
        router
            .request_completion(request_of_tenant("other", 1.0, "x".into()))
            .await
    };
    let (crowd, other) = tokio::join!(crowd, other);
    let full = crowd
        .iter()
        .filter(|r| matches!(r, Err(LlmError::QueueFull { .. })))
        .count();
    assert!(
        (9..=10).contains(&full),
        "{full} of 20 with room for 10 and one call"
    );
    assert!(other.is_ok());
}

#[tokio::test(start_paused = true)]
async fn caller_that_waits_for_queue_space_never_fills_the_queue() {
    let fake = FakeProvider::succeeding("only", 1.0);
    let config = RouterConfig {
        max_queued_per_tenant: 10,
        backpressure_threshold: 8,
        ..RouterConfig::default()
    };
    let router = Arc::new(Router::new(
        vec![fake.provider_entry(options_with_concurrency(2))],
        config,
    ));
    let tenant = account_of("one", 1.0).tenant;
    let (mut tasks, mut max_queued) = (Vec::new(), 0);
    for i in 0..100 {
        router.wait_for_tenant_queue_space(&tenant).await;
        let router = Arc::clone(&router);
        let asker = Arc::clone(&router);
        tasks.push(tokio::spawn(async move {
            asker.request_completion(build_request(format!("{i}"))).await
        }));
        tokio::task::yield_now().await;
        max_queued = max_queued.max(router.stats().queued_requests);
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(max_queued, 8);
}
