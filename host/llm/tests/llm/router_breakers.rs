//! Circuit breakers in the router, in virtual time: when they open, and what closes them.

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep};
use weir_core::llm::LanguageModel as _;
use weir_llm::{BreakerConfig, Router, RouterConfig};

use crate::fake_provider::{
    FakeProvider, build_request, options_with_concurrency, server_error, waiting_router_config,
};

#[tokio::test(start_paused = true)]
async fn slow_provider_opens_its_breaker_only_with_an_alternative() {
    let slow = || FakeProvider::succeeding("slow", 40.0);
    let alone = Router::new(
        vec![slow().provider_entry(options_with_concurrency(4))],
        waiting_router_config(),
    );
    let _ = join_all((0..100).map(|i| alone.request_completion(build_request(format!("{i}"))))).await;
    assert_eq!(alone.stats().providers[0].breaker_openings, 0);

    let quick = FakeProvider::succeeding("quick", 5.0);
    let router = Router::new(
        vec![
            slow().provider_entry(options_with_concurrency(4)),
            quick.provider_entry(options_with_concurrency(4)),
        ],
        waiting_router_config(),
    );
    let _ = join_all((0..500).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    let stats = router.stats();
    // Opened once because it was slow, and twice because the probes were slow.
    assert_eq!(
        (
            stats.providers[0].breaker_openings,
            stats.providers[1].breaker_openings
        ),
        (3, 0)
    );
    assert!(quick.call_count() > 400, "{}", quick.call_count());
}

#[tokio::test(start_paused = true)]
async fn breakers_open_at_most_once_per_open_duration() {
    // Two providers fail and recover at random for hours.
    let began = Instant::now();
    let flaky = |model, seed: u64| {
        FakeProvider::new(model, move |_, _| {
            let phase = began.elapsed().as_secs() / 97 + seed;
            let bad = phase.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1;
            (
                Duration::from_secs(2),
                if bad { Err(server_error()) } else { Ok(()) },
            )
        })
    };
    let (one, two) = (flaky("one", 1), flaky("two", 1000));
    let large = RouterConfig {
        max_queued_per_tenant: 5000,
        ..waiting_router_config()
    };
    let router = Router::new(
        vec![
            one.provider_entry(options_with_concurrency(4)),
            two.provider_entry(options_with_concurrency(4)),
        ],
        large,
    );
    let responses = join_all((0..5000).map(|i| {
        let router = &router;
        async move {
            sleep(Duration::from_secs(4 * i)).await;
            router
                .request_completion(build_request(format!("{i}")))
                .await
                .map(|response| response.text)
        }
    }))
    .await;
    for (i, response) in responses.into_iter().enumerate() {
        assert_eq!(
            response.unwrap(),
            i.to_string(),
            "each request gets its own response"
        );
    }
    let most = began.elapsed().as_secs() / BreakerConfig::default().open_duration.as_secs() + 1;
    for provider in router.stats().providers {
        println!(
            "{}: breaker opened {} times, at most {most}",
            provider.name, provider.breaker_openings
        );
        assert!(
            provider.breaker_openings > 2 && provider.breaker_openings <= most,
            "{provider:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_probe_does_not_close_the_breaker() {
    let began = Instant::now();
    let hangs = FakeProvider::new("hangs", move |_, _| match began.elapsed() {
        early if early < Duration::from_secs(60) => (Duration::from_secs(1), Err(server_error())),
        _ => (Duration::from_secs(1_000_000), Ok(())),
    });
    let mut entry = hangs.provider_entry(options_with_concurrency(4));
    entry.options.call_timeout = Duration::from_secs(3600);
    let router = Router::new(vec![entry], waiting_router_config());
    let impatient = |i: u64| {
        let mut request = build_request(format!("{i}"));
        request.timeout = Duration::from_secs(40);
        let router = &router;
        async move {
            // The first requests open the breaker; the later ones are sent one at a time.
            sleep(Duration::from_secs(100 * i.saturating_sub(4))).await;
            router.request_completion(request).await
        }
    };
    let responses = join_all((0..20).map(impatient)).await;
    assert!(responses.iter().all(Result::is_err));
    let stats = router.stats().providers.remove(0);
    assert!(
        stats.breaker_openings >= 2,
        "calls dropped after 40 s do not close the breaker: {stats:?}"
    );
}
