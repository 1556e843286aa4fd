//! Limits of a provider that several nodes share.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep, timeout};
use weir_core::llm::{LanguageModel as _, LlmRequest, LlmRequestKind};
use weir_llm::{ProviderOptions, Router};

use crate::fake_call_store::FakeCallStore;
use crate::fake_provider::{
    FakeProvider, account_of, build_request, options_with_concurrency, waiting_router_config,
};

const LONG_LEASE: Duration = Duration::from_secs(1_000_000);

/// Creates the router of a new node.
async fn add_node(
    store: &Arc<FakeCallStore>,
    provider: &Arc<FakeProvider>,
    options: ProviderOptions,
    lease: Duration,
) -> Router {
    let shared = store.add_node(lease).await;
    Router::new(vec![provider.provider_entry(options)], waiting_router_config())
        .with_shared_call_limits(&shared)
}

async fn add_three_nodes(
    store: &Arc<FakeCallStore>,
    provider: &Arc<FakeProvider>,
    options: ProviderOptions,
) -> [Router; 3] {
    [
        add_node(store, provider, options, LONG_LEASE).await,
        add_node(store, provider, options, LONG_LEASE).await,
        add_node(store, provider, options, LONG_LEASE).await,
    ]
}

/// Sends requests from each router at once. Returns the time until all are answered.
async fn send_all(routers: &[Router], requests_each: usize, tokens: u32) -> Duration {
    let began = Instant::now();
    let sent = routers.iter().enumerate().flat_map(|(node, router)| {
        (0..requests_each).map(move |number| {
            let request = LlmRequest {
                max_response_tokens: tokens,
                ..build_request(format!("{node} {number}"))
            };
            router.request_completion(request)
        })
    });
    for answer in join_all(sent).await {
        answer.unwrap();
    }
    began.elapsed()
}

/// The largest number of calls that started in any minute.
fn max_calls_in_a_minute(provider: &FakeProvider) -> usize {
    let calls = provider.recorded_calls();
    let minutes = calls.iter().enumerate().map(|(index, (from, _))| {
        let minute = calls[index..].iter();
        minute
            .take_while(|(at, _)| at.duration_since(*from) <= Duration::from_secs(60))
            .count()
    });
    minutes.max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn three_nodes_together_keep_and_use_the_limits_per_minute() {
    let (store, provider) = (Arc::default(), FakeProvider::succeeding("shared", 2.0));
    let options = ProviderOptions {
        requests_per_minute: 60,
        ..options_with_concurrency(4)
    };
    let routers = add_three_nodes(&store, &provider, options).await;
    let took = send_all(&routers, 100, 100).await.as_secs_f64();
    assert_eq!(provider.call_count(), 300);
    assert_eq!(
        (provider.peak_in_flight(), max_calls_in_a_minute(&provider)),
        (4, 60)
    );
    // 240 calls in four minutes, then 60 at four at once.
    let floor = 4.0 * 60.0 + 30.0;
    assert!(took < floor * 1.05, "{took} s, at least {floor} s are needed");
    for router in &routers {
        router.close().await;
    }
    assert_eq!(store.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_share_the_calls_in_flight_equally() {
    let (store, provider) = (Arc::default(), FakeProvider::succeeding("shared", 2.0));
    let routers = add_three_nodes(&store, &provider, options_with_concurrency(4)).await;
    let took = send_all(&routers, 100, 100).await.as_secs_f64();
    assert_eq!(provider.peak_in_flight(), 4);
    let floor = 300.0 / 4.0 * 2.0;
    assert!(took < floor * 1.05, "{took} s, at least {floor} s are needed");
    let calls = provider.recorded_calls();
    for node in ["0 ", "1 ", "2 "] {
        let half = &calls[..150];
        let share = half.iter().filter(|(_, text)| text.starts_with(node)).count();
        assert!((40..=60).contains(&share), "{share} of 150 calls");
    }
}

#[tokio::test(start_paused = true)]
async fn node_without_calls_gets_the_only_place_in_turn() {
    let (store, provider) = (Arc::default(), FakeProvider::succeeding("shared", 30.0));
    let [busy, idle, _] = add_three_nodes(&store, &provider, options_with_concurrency(1)).await;
    let crowd = join_all((0..20).map(|number| busy.request_completion(build_request(format!("{number}")))));
    let single = async {
        sleep(Duration::from_secs(40)).await;
        let began = Instant::now();
        idle.request_completion(build_request("single")).await.unwrap();
        began.elapsed().as_secs_f64()
    };
    let (_, waited) = tokio::join!(crowd, single);
    assert!(waited < 20.0 + 30.0 + 1.0, "{waited} s after the call in flight");
}

#[tokio::test(start_paused = true)]
async fn three_nodes_together_keep_the_token_limit() {
    let (store, provider) = (Arc::default(), FakeProvider::succeeding("shared", 1.0));
    let options = ProviderOptions {
        // A fake reports 1100 tokens for each call.
        tokens_per_minute: 11_500,
        ..options_with_concurrency(8)
    };
    let routers = add_three_nodes(&store, &provider, options).await;
    let took = send_all(&routers, 19, 2000).await.as_secs_f64();
    assert_eq!(provider.call_count(), 57);
    assert!(
        max_calls_in_a_minute(&provider) <= 10,
        "{:?}",
        max_calls_in_a_minute(&provider)
    );
    let floor = 5.0 * 60.0;
    assert!(took < floor * 1.1, "{took} s, at least {floor} s are needed");
}

#[tokio::test(start_paused = true)]
async fn order_of_tenants_and_pages_is_that_of_one_node() {
    let (store, provider) = (Arc::default(), FakeProvider::succeeding("shared", 1.0));
    let router = add_node(&store, &provider, options_with_concurrency(4), LONG_LEASE).await;
    let of_tenant = |tenant: &str, weight: f64, number: u32| LlmRequest {
        scheduling: account_of(tenant, weight),
        ..build_request(format!("{tenant} {number}"))
    };
    let light = join_all((0..400).map(|number| router.request_completion(of_tenant("light", 1.0, number))));
    let heavy = join_all((0..400).map(|number| router.request_completion(of_tenant("heavy", 3.0, number))));
    let both = async { tokio::join!(light, heavy) };
    let _ = timeout(Duration::from_millis(60_500), both).await;
    let calls = provider.recorded_calls();
    let heavy = calls.iter().filter(|(_, text)| text.starts_with("heavy")).count();
    let share = heavy as f64 / calls.len() as f64;
    assert!((share - 0.75).abs() < 0.03, "{share}");

    let chapters = join_all((0..40).map(|number| router.request_completion(of_tenant("one", 1.0, number))));
    let page = async {
        sleep(Duration::from_millis(3500)).await;
        let began = Instant::now();
        let page = LlmRequest {
            kind: LlmRequestKind::Page,
            ..of_tenant("one", 1.0, 1000)
        };
        router.request_completion(page).await.unwrap();
        began.elapsed().as_secs_f64()
    };
    let (_, waited) = tokio::join!(chapters, page);
    assert!(waited < 2.1, "{waited} s: the call in flight and its own");
}

#[tokio::test(start_paused = true)]
async fn dropped_requests_free_their_places() {
    let (store, provider) = (Arc::<FakeCallStore>::default(), FakeProvider::hanging("shared"));
    let [one, other, _] = add_three_nodes(&store, &provider, options_with_concurrency(4)).await;
    let hanging = join_all((0..10).map(|number| one.request_completion(build_request(format!("{number}")))));
    assert!(timeout(Duration::from_secs(10), hanging).await.is_err());
    // The turn of the dropped requests is given up: the other node has all places at once.
    let hanging = join_all((0..4).map(|number| other.request_completion(build_request(format!("{number}")))));
    assert!(timeout(Duration::from_millis(500), hanging).await.is_err());
    assert_eq!((provider.call_count(), provider.peak_in_flight()), (8, 4));
    other.close().await;
    one.close().await;
    assert_eq!(store.in_flight(), 0);

    // A call that was admitted for a request that is gone counts for nothing.
    let store = Arc::<FakeCallStore>::default();
    let node = add_node(&store, &provider, options_with_concurrency(4), LONG_LEASE).await;
    let dropped = node.request_completion(build_request("dropped"));
    assert!(timeout(Duration::from_millis(2), dropped).await.is_err());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        (store.asked(), store.in_window(), provider.call_count()),
        (1, 0, 8)
    );
}

#[tokio::test(start_paused = true)]
async fn no_call_starts_while_the_store_is_down_and_none_is_lost() {
    let (store, provider) = (
        Arc::<FakeCallStore>::default(),
        FakeProvider::succeeding("shared", 2.0),
    );
    let routers = add_three_nodes(&store, &provider, options_with_concurrency(4)).await;
    let outage = async {
        sleep(Duration::from_secs(10)).await;
        store.lose_responses(3);
        sleep(Duration::from_secs(1)).await;
        store.set_down(true);
        sleep(Duration::from_millis(100)).await;
        let before = provider.call_count();
        sleep(Duration::from_secs(60)).await;
        assert_eq!((provider.call_count(), provider.in_flight()), (before, 0));
        store.set_down(false);
    };
    let (took, ()) = tokio::join!(send_all(&routers, 40, 100), outage);
    let took = took.as_secs_f64();
    assert_eq!((provider.call_count(), provider.peak_in_flight()), (120, 4));
    // Without the outage it is a minute.
    assert!(took < 60.0 + 61.0 + 6.0, "{took} s");
    for router in &routers {
        router.close().await;
    }
    assert_eq!(store.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_lost_node_end_with_its_lease_and_stay_in_the_window() {
    let (store, provider) = (Arc::<FakeCallStore>::default(), FakeProvider::hanging("shared"));
    let options = ProviderOptions {
        requests_per_minute: 6,
        ..options_with_concurrency(4)
    };
    let lost = add_node(&store, &provider, options, Duration::from_secs(30)).await;
    let node = add_node(&store, &provider, options, LONG_LEASE).await;
    // The requests stay in flight: the lost node records no end.
    let of_lost = join_all((0..4).map(|number| lost.request_completion(build_request(format!("{number}")))));
    let of_node = async {
        sleep(Duration::from_secs(1)).await;
        join_all((0..9).map(|number| node.request_completion(build_request(format!("{number}"))))).await
    };
    let check = async {
        sleep(Duration::from_secs(29)).await;
        assert_eq!(provider.call_count(), 4);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(provider.call_count(), 6);
        sleep(Duration::from_secs(29)).await;
        assert_eq!(provider.call_count(), 6);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(provider.call_count(), 8);
    };
    tokio::select! {
        _ = of_lost => panic!("the provider has answered"),
        _ = of_node => panic!("the provider has answered"),
        () = check => {}
    }
}

#[tokio::test(start_paused = true)]
async fn node_without_a_lease_makes_no_call() {
    let (store, provider) = (
        Arc::<FakeCallStore>::default(),
        FakeProvider::succeeding("shared", 1.0),
    );
    let node = add_node(&store, &provider, options_with_concurrency(4), Duration::ZERO).await;
    let request = node.request_completion(build_request("waits"));
    assert!(timeout(Duration::from_secs(60), request).await.is_err());
    assert_eq!(provider.call_count(), 0);
    assert!((100..500).contains(&store.asked()), "{}", store.asked());
}

#[tokio::test(start_paused = true)]
async fn late_admission_is_withdrawn_and_requested_again() {
    let (store, provider) = (
        Arc::<FakeCallStore>::default(),
        FakeProvider::succeeding("shared", 1.0),
    );
    let node = add_node(&store, &provider, options_with_concurrency(4), LONG_LEASE).await;
    store.set_response_delay(Duration::from_millis(1500));
    let recovery = async {
        sleep(Duration::from_secs(10)).await;
        assert_eq!(provider.call_count(), 0);
        store.set_response_delay(Duration::ZERO);
    };
    let (answer, ()) = tokio::join!(node.request_completion(build_request("late")), recovery);
    answer.unwrap();
    node.close().await;
    assert!(store.asked() > 3, "{}", store.asked());
    assert_eq!(
        (provider.call_count(), store.in_window(), store.in_flight()),
        (1, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn provider_with_limits_of_its_own_on_each_node_asks_no_store() {
    let (store, provider) = (
        Arc::<FakeCallStore>::default(),
        FakeProvider::succeeding("local", 1.0),
    );
    let options = ProviderOptions {
        has_shared_limits: false,
        ..options_with_concurrency(4)
    };
    let routers = add_three_nodes(&store, &provider, options).await;
    send_all(&routers, 8, 100).await;
    assert_eq!((store.asked(), provider.peak_in_flight()), (0, 12));
}

/// The first provider is preferred, although both are asked for at the same time.
#[tokio::test(start_paused = true)]
async fn single_request_goes_to_the_first_provider() {
    let store = Arc::<FakeCallStore>::default();
    let (first, second) = (
        FakeProvider::succeeding("first", 1.0),
        FakeProvider::succeeding("second", 1.0),
    );
    let shared = store.add_node(LONG_LEASE).await;
    let entries = [&first, &second].map(|provider| provider.provider_entry(options_with_concurrency(4)));
    let router = Router::new(entries.into(), waiting_router_config()).with_shared_call_limits(&shared);
    for number in 0..20 {
        router
            .request_completion(build_request(format!("{number}")))
            .await
            .unwrap();
    }
    assert_eq!((first.call_count(), second.call_count()), (20, 0));
    // Beyond the limit of the first, the second gets requests, too.
    let took = send_all(&[router], 8, 100).await.as_secs_f64();
    assert_eq!((first.call_count(), second.call_count()), (24, 4));
    assert!(took < 1.2, "{took}");
}
