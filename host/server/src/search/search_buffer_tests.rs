use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_core::TenantId;
use weir_core::search::SearchHit;
use weir_core::settings::Settings;
use weir_engine::{SearchError, SearchRequest};

use super::search_buffer::{PendingSearchHandle, SearchBatchExecutor, SearchBuffer};
use crate::problem::Problem;

/// Completes one batch for each permit, and records the tenant, size and arrival time of each batch.
struct FakeSearchExecutor {
    began: Instant,
    batches: Mutex<Vec<(String, usize, Duration)>>,
    /// One permit completes one batch.
    batch_permits: Semaphore,
}

#[async_trait]
impl SearchBatchExecutor for FakeSearchExecutor {
    async fn execute_batch(&self, queries: Vec<SearchRequest>) -> Vec<Result<Vec<SearchHit>, SearchError>> {
        let tenant = queries[0].tenant.to_string();
        assert!(
            queries.iter().all(|q| q.tenant.as_str() == tenant),
            "a batch must contain queries of one tenant only"
        );
        self.batches
            .lock()
            .push((tenant, queries.len(), self.began.elapsed()));
        self.batch_permits.acquire().await.unwrap().forget();
        queries.iter().map(|_| Ok(Vec::new())).collect()
    }
}

struct BufferHarness {
    buffer: Arc<SearchBuffer>,
    executor: Arc<FakeSearchExecutor>,
    _running: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl BufferHarness {
    fn new(settings: &Settings, max_batches_in_flight: usize, batch_permits: usize) -> Self {
        let buffer = SearchBuffer::new(settings);
        let executor = Arc::new(FakeSearchExecutor {
            began: Instant::now(),
            batches: Mutex::default(),
            batch_permits: Semaphore::new(batch_permits),
        });
        let running = tokio::spawn(
            Arc::clone(&buffer).dispatch_batches(Arc::clone(&executor) as _, max_batches_in_flight),
        );
        Self {
            buffer,
            executor,
            _running: AbortOnDrop(running),
        }
    }

    fn enqueue_queries(&self, name: &str, count: usize) -> Vec<Result<PendingSearchHandle, Problem>> {
        let tenant = tenant_id(name);
        let query = || SearchRequest::new(tenant.clone(), "q");
        self.buffer
            .enqueue_queries(&tenant, (0..count).map(|_| query()).collect())
    }

    /// The batches that have been dispatched so far.
    async fn dispatched_batches(&self) -> Vec<(String, usize, u128)> {
        // In virtual time this returns once no task can make progress.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let batches = self.executor.batches.lock();
        batches
            .iter()
            .map(|(t, n, at)| (t.clone(), *n, at.as_millis()))
            .collect()
    }
}

fn tenant_id(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn buffer_settings(capacity: u32, batch: u32) -> Settings {
    Settings {
        query_stream_max_queued_queries: capacity,
        query_stream_max_batch_queries: batch,
        ..Settings::default()
    }
}

#[tokio::test(start_paused = true)]
async fn single_query_is_sent_at_once() {
    let bench = BufferHarness::new(&Settings::default(), 2, 1);
    let pending_search = bench.enqueue_queries("a", 1).remove(0).unwrap();
    assert!(pending_search.wait_for_hits().await.is_ok());
    assert_eq!(bench.executor.began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn queries_wait_while_a_batch_is_in_flight() {
    let bench = BufferHarness::new(&Settings::default(), 2, 0);
    let first = bench.enqueue_queries("a", 1);
    bench.dispatched_batches().await;
    let rest: Vec<_> = (0..31).flat_map(|_| bench.enqueue_queries("a", 1)).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.dispatched_batches().await.len(), 1, "the queries wait");
    bench.executor.batch_permits.add_permits(1);
    let batches = bench.dispatched_batches().await;
    assert_eq!(
        batches[1].1, 31,
        "they are sent in one batch, before the linger time is over: {batches:?}"
    );
    assert!(batches[1].2 < 100);
    bench.executor.batch_permits.add_permits(1);
    for pending_search in first.into_iter().chain(rest) {
        assert!(pending_search.unwrap().wait_for_hits().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn queries_wait_at_most_the_linger_time() {
    let bench = BufferHarness::new(&Settings::default(), 2, 0);
    let _first = bench.enqueue_queries("a", 1);
    bench.dispatched_batches().await;
    let _rest = bench.enqueue_queries("a", 3);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let batches = bench.dispatched_batches().await;
    assert_eq!((batches[1].1, batches[1].2), (3, 101), "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn full_batch_is_sent_at_once() {
    let bench = BufferHarness::new(&Settings::default(), 4, 0);
    let _first = bench.enqueue_queries("a", 1);
    bench.dispatched_batches().await;
    let _rest = bench.enqueue_queries("a", 70);
    let batches = bench.dispatched_batches().await;
    let sizes: Vec<_> = batches.iter().map(|b| b.1).collect();
    assert_eq!(sizes, [1, 32, 32], "the other 6 queries wait");
    assert!(batches[2].2 <= 2, "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn tenants_are_served_in_turn() {
    let bench = BufferHarness::new(&Settings::default(), 1, 0);
    let _flood = bench.enqueue_queries("flood", 320);
    bench.dispatched_batches().await;
    let lone = bench.enqueue_queries("lone", 1).remove(0).unwrap();
    bench.executor.batch_permits.add_permits(1);
    let batches = bench.dispatched_batches().await;
    assert_eq!(
        batches[1].0, "lone",
        "it is served after one batch of the other tenant: {batches:?}"
    );
    bench.executor.batch_permits.add_permits(1);
    assert!(lone.wait_for_hits().await.is_ok());
    assert_eq!(bench.dispatched_batches().await.last().unwrap().0, "flood");
}

#[tokio::test(start_paused = true)]
async fn full_buffer_refuses_the_tenant_that_fills_it() {
    let bench = BufferHarness::new(&buffer_settings(10, 4), 1, 0);
    let _under_way = bench.enqueue_queries("flood", 4);
    bench.dispatched_batches().await;
    let mut flood = bench.enqueue_queries("flood", 12);
    let refused: Vec<_> = flood
        .iter()
        .map(|t| t.as_ref().err().map(Problem::status))
        .collect();
    assert_eq!(refused[9..], [None, Some(503), Some(503)]);
    // A query of another tenant replaces the newest query of the flooding tenant.
    let lone = bench.enqueue_queries("lone", 1).remove(0);
    assert!(lone.is_ok());
    let dropped = flood.remove(9).unwrap().wait_for_hits().await.unwrap_err();
    assert_eq!(dropped.status(), 503);
    // Canceled queries are removed first.
    drop(flood);
    assert!(bench.enqueue_queries("flood", 9).iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn canceled_query_is_not_embedded() {
    let bench = BufferHarness::new(&Settings::default(), 1, 0);
    let _first = bench.enqueue_queries("a", 1);
    bench.dispatched_batches().await;
    let mut rest = bench.enqueue_queries("a", 5);
    rest.truncate(2);
    bench.executor.batch_permits.add_permits(1);
    assert_eq!(bench.dispatched_batches().await[1].1, 2);
}

#[tokio::test(start_paused = true)]
async fn query_times_out() {
    let bench = BufferHarness::new(&Settings::default(), 1, 0);
    let pending_search = bench.enqueue_queries("a", 1).remove(0).unwrap();
    assert_eq!(pending_search.wait_for_hits().await.unwrap_err().status(), 503);
    assert_eq!(bench.executor.began.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn linger_time_batch_size_and_timeout_are_configurable() {
    let quick = Settings {
        query_stream_batch_linger_millis: 5,
        query_stream_query_timeout_seconds: 1,
        ..buffer_settings(1000, 2)
    };
    let bench = BufferHarness::new(&quick, 8, 0);
    let first = bench.enqueue_queries("a", 1).remove(0).unwrap();
    bench.dispatched_batches().await;
    let _rest = bench.enqueue_queries("a", 3);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let batches = bench.dispatched_batches().await;
    let sizes: Vec<_> = batches.iter().map(|b| b.1).collect();
    assert_eq!(sizes, [1, 2, 1], "{batches:?}");
    assert_eq!(
        batches[2].2, 6,
        "the last query waits for query_stream.batch_linger_millis"
    );
    assert!(first.wait_for_hits().await.is_err());
    assert_eq!(bench.executor.began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_batch_does_not_block_the_next_one() {
    struct Dying;
    #[async_trait]
    impl SearchBatchExecutor for Dying {
        async fn execute_batch(
            &self,
            queries: Vec<SearchRequest>,
        ) -> Vec<Result<Vec<SearchHit>, SearchError>> {
            assert!(queries.len() > 1, "panics for a batch of one query");
            queries.iter().map(|_| Ok(Vec::new())).collect()
        }
    }
    let buffer = SearchBuffer::new(&Settings::default());
    let _running = AbortOnDrop(tokio::spawn(
        Arc::clone(&buffer).dispatch_batches(Arc::new(Dying), 1),
    ));
    let a = tenant_id("a");
    let ask = |count: usize| {
        buffer.enqueue_queries(
            &a,
            (0..count).map(|_| SearchRequest::new(a.clone(), "q")).collect(),
        )
    };
    for pending_search in ask(1) {
        assert_eq!(
            pending_search
                .unwrap()
                .wait_for_hits()
                .await
                .unwrap_err()
                .status(),
            500
        );
    }
    for pending_search in ask(2) {
        assert!(pending_search.unwrap().wait_for_hits().await.is_ok());
    }
}
