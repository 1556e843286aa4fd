//! The makespan of many requests, compared with its minimum.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Duration, Instant};
use weir_core::llm::{LanguageModel, LlmRequest};
use weir_llm::{Router, RouterConfig};

use crate::fake_provider::{FakeProvider, build_request, options_with_concurrency};

/// Numbers of chapters with at most 5000 characters, and of parts of longer chapters.
const CHAPTER_COUNT: usize = 192;
const PART_COUNT: usize = 444;

/// A provider that takes 22.5 s for a chapter and 17.5 s for a part. Calls above `most` calls in flight are never answered.
fn provider_with_capacity(model: &'static str, capacity: u32) -> Arc<FakeProvider> {
    FakeProvider::new(model, move |request: &LlmRequest, in_flight| {
        let seconds = match request.text.starts_with("chapter") {
            _ if in_flight > capacity => 1e9,
            true => 22.5,
            false => 17.5,
        };
        (Duration::from_secs_f64(seconds), Ok(()))
    })
}

fn chapter_requests() -> Vec<LlmRequest> {
    // Short and long chapters are mixed, as in a book.
    let mut random = fastrand::Rng::with_seed(385);
    let mut texts: Vec<String> = (0..CHAPTER_COUNT).map(|i| format!("chapter {i}")).collect();
    texts.extend((0..PART_COUNT).map(|i| format!("part {i}")));
    random.shuffle(&mut texts);
    texts.into_iter().map(build_request).collect()
}

async fn measure_makespan(router: &Router, requests: Vec<LlmRequest>) -> f64 {
    let began = Instant::now();
    let request_texts: Vec<String> = requests.iter().map(|q| q.text.clone()).collect();
    let responses = join_all(
        requests
            .into_iter()
            .map(|request| router.request_completion(request)),
    )
    .await;
    let answered: Vec<String> = responses
        .into_iter()
        .map(|response| response.unwrap().text)
        .collect();
    assert_eq!(answered, request_texts, "each request gets its own response");
    began.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn makespan_is_within_five_percent_of_the_minimum() {
    let floor = CHAPTER_COUNT as f64 * 22.5 + PART_COUNT as f64 * 17.5;
    for (providers, floor) in [(1, floor / 4.0), (2, floor / 8.0)] {
        let fakes: Vec<_> = ["first", "second"]
            .into_iter()
            .take(providers)
            .map(|m| provider_with_capacity(m, 4))
            .collect();
        let entries = fakes
            .iter()
            .map(|fake| fake.provider_entry(options_with_concurrency(4)))
            .collect();
        let router = Router::new(entries, RouterConfig::default());
        let seconds = measure_makespan(&router, chapter_requests()).await;
        let stats = router.stats();
        println!(
            "{providers} provider(s): {seconds:.0} s, floor {floor:.0} s, {:.1} %",
            (seconds / floor - 1.0) * 100.0
        );
        assert!(seconds <= floor * 1.05, "{seconds} s, floor {floor} s");
        let timeouts: u64 = stats.providers.iter().map(|p| p.timeouts).sum();
        let calls: usize = fakes.iter().map(|fake| fake.call_count()).sum();
        assert_eq!((timeouts, calls), (0, CHAPTER_COUNT + PART_COUNT));
        assert!(fakes.iter().all(|fake| fake.peak_in_flight() == 4));
        assert!(
            stats.providers.iter().all(|p| p.breaker_openings == 0),
            "{stats:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn limiter_finds_a_capacity_below_the_configured_one() {
    let fake = provider_with_capacity("optimist", 4);
    let mut options = options_with_concurrency(6);
    options.call_timeout = Duration::from_secs(60);
    let router = Router::new(vec![fake.provider_entry(options)], RouterConfig::default());
    let seconds = measure_makespan(&router, chapter_requests()).await;
    let stats = router.stats().providers.remove(0);
    let late = stats.timeouts as f64 / stats.total_calls as f64;
    let floor = (CHAPTER_COUNT as f64 * 22.5 + PART_COUNT as f64 * 17.5) / 4.0;
    println!(
        "{seconds:.0} s, floor {floor:.0} s, {:.1} % of the calls late",
        late * 100.0
    );
    // Until the limiter has adapted, some calls time out and the breaker opens for a while.
    assert!(late < 0.05, "{late}: {stats:?}");
    assert!(seconds < floor * 1.25, "{seconds} s, floor {floor} s");
}

#[tokio::test(start_paused = true)]
async fn ten_pages_of_three_seconds_take_five_workers_six_seconds() {
    let fake = FakeProvider::succeeding("sees", 3.0);
    let router = Router::new(
        vec![fake.provider_entry(options_with_concurrency(5))],
        RouterConfig::default(),
    );
    let pages = (0..10)
        .map(|page| build_request(format!("page {page}")))
        .collect();
    let seconds = measure_makespan(&router, pages).await;
    assert!((5.7..=6.3).contains(&seconds), "{seconds}");
    assert_eq!(fake.peak_in_flight(), 5);
}

#[tokio::test(start_paused = true)]
async fn no_minute_has_more_calls_than_the_limit() {
    let fake = FakeProvider::succeeding("polite", 0.5);
    let mut options = options_with_concurrency(8);
    options.requests_per_minute = 30;
    let router = Router::new(vec![fake.provider_entry(options)], RouterConfig::default());
    let seconds = measure_makespan(&router, (0..300).map(|i| build_request(format!("{i}"))).collect()).await;
    let calls = fake.recorded_calls();
    for (index, (from, _)) in calls.iter().enumerate() {
        let minute = calls[index..]
            .iter()
            .take_while(|(at, _)| at.duration_since(*from) <= Duration::from_secs(60));
        assert!(minute.count() <= 30);
    }
    assert!(seconds < 10.0 * 61.0, "the limit is fully used: {seconds}");
}

#[tokio::test(start_paused = true)]
async fn token_limit_holds_when_calls_use_more_than_estimated() {
    let fake = FakeProvider::succeeding("counted", 1.0);
    let mut options = options_with_concurrency(8);
    // A fake reports 1100 tokens per call, far more than the estimate.
    options.tokens_per_minute = 11_000;
    let router = Router::new(vec![fake.provider_entry(options)], RouterConfig::default());
    let seconds = measure_makespan(&router, (0..60).map(|i| build_request(format!("{i}"))).collect()).await;
    let calls = fake.recorded_calls();
    let minutes = calls.iter().enumerate().map(|(index, (from, _))| {
        let minute = |(at, _): &&(Instant, String)| at.duration_since(*from) <= Duration::from_secs(60);
        calls[index..].iter().take_while(minute).count()
    });
    let minutes: Vec<usize> = minutes.collect();
    // Eight calls start before the actual number of tokens is known; from then on, ten fit into a minute.
    assert!(minutes[..16].iter().all(|count| *count <= 18), "{minutes:?}");
    assert!(minutes[18..].iter().all(|count| *count <= 11), "{minutes:?}");
    assert!((4.0 * 61.0..6.0 * 61.0).contains(&seconds), "{seconds}");
}
