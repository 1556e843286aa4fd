use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_core::TenantId;
use weir_core::search::Hit;
use weir_core::settings::Settings;
use weir_engine::{SearchError, SearchRequest};

use super::buffer::{Answers, SearchBuffer, Ticket};
use crate::problem::Problem;

/// Answers a batch when it is let, and remembers when each came and how large it was.
struct Model {
    began: Instant,
    batches: Mutex<Vec<(String, usize, Duration)>>,
    /// One permit lets one batch through.
    lets: Semaphore,
}

#[async_trait]
impl Answers for Model {
    async fn answer(&self, queries: Vec<SearchRequest>) -> Vec<Result<Vec<Hit>, SearchError>> {
        let tenant = queries[0].tenant.to_string();
        assert!(
            queries.iter().all(|q| q.tenant.as_str() == tenant),
            "one tenant a batch"
        );
        self.batches
            .lock()
            .push((tenant, queries.len(), self.began.elapsed()));
        self.lets.acquire().await.unwrap().forget();
        queries.iter().map(|_| Ok(Vec::new())).collect()
    }
}

struct Bench {
    buffer: Arc<SearchBuffer>,
    model: Arc<Model>,
    _running: Running,
}

struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bench {
    fn new(settings: &Settings, at_once: usize, lets: usize) -> Self {
        let buffer = SearchBuffer::new(settings);
        let model = Arc::new(Model {
            began: Instant::now(),
            batches: Mutex::default(),
            lets: Semaphore::new(lets),
        });
        let running = tokio::spawn(Arc::clone(&buffer).run(Arc::clone(&model) as _, at_once));
        Self {
            buffer,
            model,
            _running: Running(running),
        }
    }

    fn ask(&self, name: &str, count: usize) -> Vec<Result<Ticket, Problem>> {
        let tenant = tenant(name);
        let query = || SearchRequest::new(tenant.clone(), "q");
        self.buffer.put(&tenant, (0..count).map(|_| query()).collect())
    }

    /// What has come to the model so far.
    async fn batches(&self) -> Vec<(String, usize, u128)> {
        // In virtual time this passes once everything has come to rest.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let batches = self.model.batches.lock();
        batches
            .iter()
            .map(|(t, n, at)| (t.clone(), *n, at.as_millis()))
            .collect()
    }
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn settings(capacity: u32, batch: u32) -> Settings {
    Settings {
        stream_capacity: capacity,
        stream_batch: batch,
        ..Settings::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_query_leaves_at_once() {
    let bench = Bench::new(&Settings::default(), 2, 1);
    let ticket = bench.ask("a", 1).remove(0).unwrap();
    assert!(ticket.answer().await.is_ok());
    assert_eq!(bench.model.began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn queries_behind_a_batch_under_way_gather_until_it_ends() {
    let bench = Bench::new(&Settings::default(), 2, 0);
    let first = bench.ask("a", 1);
    bench.batches().await;
    let rest: Vec<_> = (0..31).flat_map(|_| bench.ask("a", 1)).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.batches().await.len(), 1, "they wait");
    bench.model.lets.add_permits(1);
    let batches = bench.batches().await;
    assert_eq!(
        batches[1].1, 31,
        "and leave together, before the linger time is over: {batches:?}"
    );
    assert!(batches[1].2 < 100);
    bench.model.lets.add_permits(1);
    for ticket in first.into_iter().chain(rest) {
        assert!(ticket.unwrap().answer().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_linger_time_for_company() {
    let bench = Bench::new(&Settings::default(), 2, 0);
    let _first = bench.ask("a", 1);
    bench.batches().await;
    let _rest = bench.ask("a", 3);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let batches = bench.batches().await;
    assert_eq!((batches[1].1, batches[1].2), (3, 101), "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_wait() {
    let bench = Bench::new(&Settings::default(), 4, 0);
    let _first = bench.ask("a", 1);
    bench.batches().await;
    let _rest = bench.ask("a", 70);
    let batches = bench.batches().await;
    let sizes: Vec<_> = batches.iter().map(|b| b.1).collect();
    assert_eq!(sizes, [1, 32, 32], "the other 6 linger");
    assert!(batches[2].2 <= 2, "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns() {
    let bench = Bench::new(&Settings::default(), 1, 0);
    let _flood = bench.ask("flood", 320);
    bench.batches().await;
    let lone = bench.ask("lone", 1).remove(0).unwrap();
    bench.model.lets.add_permits(1);
    let batches = bench.batches().await;
    assert_eq!(
        batches[1].0, "lone",
        "its turn comes after one batch of the other's: {batches:?}"
    );
    bench.model.lets.add_permits(1);
    assert!(lone.answer().await.is_ok());
    assert_eq!(bench.batches().await.last().unwrap().0, "flood");
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_refuses_whoever_fills_it_and_nobody_else() {
    let bench = Bench::new(&settings(10, 4), 1, 0);
    let _under_way = bench.ask("flood", 4);
    bench.batches().await;
    let mut flood = bench.ask("flood", 12);
    let refused: Vec<_> = flood
        .iter()
        .map(|t| t.as_ref().err().map(Problem::status))
        .collect();
    assert_eq!(refused[9..], [None, Some(503), Some(503)]);
    // Another tenant takes the place of the newest.
    let lone = bench.ask("lone", 1).remove(0);
    assert!(lone.is_ok());
    let dropped = flood.remove(9).unwrap().answer().await.unwrap_err();
    assert_eq!(dropped.status(), 503);
    // Whoever has gone makes room first.
    drop(flood);
    assert!(bench.ask("flood", 9).iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_query_that_nobody_waits_for_is_not_embedded() {
    let bench = Bench::new(&Settings::default(), 1, 0);
    let _first = bench.ask("a", 1);
    bench.batches().await;
    let mut rest = bench.ask("a", 5);
    rest.truncate(2);
    bench.model.lets.add_permits(1);
    assert_eq!(bench.batches().await[1].1, 2);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_not_answered_in_time_is_given_up() {
    let bench = Bench::new(&Settings::default(), 1, 0);
    let ticket = bench.ask("a", 1).remove(0).unwrap();
    assert_eq!(ticket.answer().await.unwrap_err().status(), 503);
    assert_eq!(bench.model.began.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn settings_have_an_effect() {
    let quick = Settings {
        stream_linger_millis: 5,
        stream_seconds: 1,
        ..settings(1000, 2)
    };
    let bench = Bench::new(&quick, 8, 0);
    let first = bench.ask("a", 1).remove(0).unwrap();
    bench.batches().await;
    let _rest = bench.ask("a", 3);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let batches = bench.batches().await;
    let sizes: Vec<_> = batches.iter().map(|b| b.1).collect();
    assert_eq!(sizes, [1, 2, 1], "{batches:?}");
    assert_eq!(batches[2].2, 6, "after stream.linger_millis");
    assert!(first.answer().await.is_err());
    assert_eq!(bench.model.began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_dies_does_not_hold_the_next_batch() {
    struct Dying;
    #[async_trait]
    impl Answers for Dying {
        async fn answer(&self, queries: Vec<SearchRequest>) -> Vec<Result<Vec<Hit>, SearchError>> {
            assert!(queries.len() > 1, "dies with one");
            queries.iter().map(|_| Ok(Vec::new())).collect()
        }
    }
    let buffer = SearchBuffer::new(&Settings::default());
    let _running = Running(tokio::spawn(Arc::clone(&buffer).run(Arc::new(Dying), 1)));
    let a = tenant("a");
    let ask = |count: usize| {
        buffer.put(
            &a,
            (0..count).map(|_| SearchRequest::new(a.clone(), "q")).collect(),
        )
    };
    for ticket in ask(1) {
        assert_eq!(ticket.unwrap().answer().await.unwrap_err().status(), 500);
    }
    for ticket in ask(2) {
        assert!(ticket.unwrap().answer().await.is_ok());
    }
}
