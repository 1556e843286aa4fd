//! Tests of the scheduler with threads and a controllable model.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use weir_core::PriorityLane;
use weir_core::usage::{Usage, UsageMeter};

use super::*;

/// Returns each item unchanged. Each batch waits for one message from `gate`.
struct GatedModel {
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
    batch_sizes: Arc<Mutex<Vec<usize>>>,
}

impl BatchRunningModel<u32, u32> for GatedModel {
    fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, u32, u32>>) {
        self.batch_sizes.lock().push(batch.len());
        if self.gate.lock().recv().is_err() {
            return;
        }
        for request in batch {
            let result = match request.item {
                13 => Err(InferenceError::InvalidInput {
                    model: "fake".into(),
                    reason: "13".into(),
                }),
                666 => panic!("a test panic of the model"),
                n => Ok(n),
            };
            request.send_result(result);
        }
    }
}

struct SchedulerFixture {
    scheduler: Arc<Scheduler<u32, u32>>,
    open_gate: mpsc::Sender<()>,
    batch_sizes: Arc<Mutex<Vec<usize>>>,
    opened_models: Arc<AtomicUsize>,
}

fn scheduler_fixture(
    workers: usize,
    batch: usize,
    max_queued: usize,
    gain: MaxUsefulBatchCost,
) -> SchedulerFixture {
    metered_scheduler_fixture(workers, batch, max_queued, gain, None)
}

fn metered_scheduler_fixture(
    workers: usize,
    batch: usize,
    max_queued: usize,
    gain: MaxUsefulBatchCost,
    meter: Option<Arc<dyn UsageMeter>>,
) -> SchedulerFixture {
    let (open_gate, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let (sizes, opened) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let scheduler_config = SchedulerConfig {
        model_name: "fake",
        workers,
        max_batch: batch,
        max_queued_per_tenant: max_queued,
        max_useful_batch_cost: gain,
        latency_boost: Duration::ZERO,
        niceness: 0,
        usage_meter: meter,
    };
    let (model_sizes, model_opened) = (Arc::clone(&sizes), Arc::clone(&opened));
    let scheduler = Scheduler::new(scheduler_config, move |_| {
        model_opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(GatedModel {
            gate: Arc::clone(&gate),
            batch_sizes: Arc::clone(&model_sizes),
        }))
    });
    SchedulerFixture {
        scheduler: Arc::new(scheduler),
        open_gate,
        batch_sizes: sizes,
        opened_models: opened,
    }
}

pub(super) fn scheduling_context_of(tenant: &str) -> SchedulingContext {
    SchedulingContext {
        tenant: tenant.parse().unwrap(),
        lane: PriorityLane::Bulk,
        group: 0,
        batch_linger: Duration::from_millis(500),
        tenant_weight: 1.0,
    }
}

fn unit_cost_items(range: std::ops::Range<u32>) -> Vec<(u32, f64)> {
    range.map(|n| (n, 1.0)).collect()
}

impl SchedulerFixture {
    fn spawn_submit(
        &self,
        tenant: &str,
        items: Vec<(u32, f64)>,
    ) -> tokio::task::JoinHandle<Result<Vec<u32>, InferenceError>> {
        let (scheduler, scheduling) = (Arc::clone(&self.scheduler), scheduling_context_of(tenant));
        tokio::spawn(async move { scheduler.submit_and_await_results(&scheduling, items).await })
    }

    /// Waits until the statistics are as expected.
    async fn wait_for_stats(&self, wanted: impl Fn(ModelStats) -> bool) {
        let all = async {
            while !wanted(self.scheduler.stats()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap_or_else(|_| panic!("unexpected statistics: {:?}", self.scheduler.stats()));
    }

    /// Waits until this many requests of a tenant are pending.
    async fn wait_for_pending_requests(&self, scheduling: &SchedulingContext, requests: usize) {
        let share = self.scheduler.get_or_create_tenant_slots(scheduling);
        let all = async {
            while share.pending_requests.load(Ordering::SeqCst) < requests {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    }

    fn release_batches(&self, batches: usize) {
        for _ in 0..batches {
            self.open_gate.send(()).unwrap();
        }
    }
}

#[tokio::test]
async fn results_keep_request_order_across_batches_and_workers() {
    let fixture = scheduler_fixture(3, 4, 1000, MaxUsefulBatchCost::AnySize);
    fixture.release_batches(1000);
    let calls: Vec<_> = (0..20u32)
        .map(|n| fixture.spawn_submit("a", unit_cost_items(n * 100 + 20..n * 100 + 57)))
        .collect();
    for (n, call) in (0..20u32).zip(calls) {
        let wanted: Vec<u32> = (n * 100 + 20..n * 100 + 57).collect();
        assert_eq!(call.await.unwrap().unwrap(), wanted);
    }
    let stats = fixture.scheduler.stats();
    assert_eq!((stats.requests, stats.queued_requests), (20 * 37, 0));
    assert!(stats.largest_batch <= 4);
    assert!(fixture.batch_sizes.lock().iter().all(|n| *n <= 4));
}

#[tokio::test]
async fn no_model_is_opened_before_the_first_request() {
    let fixture = scheduler_fixture(2, 4, 10, MaxUsefulBatchCost::UpToCost(0.0));
    assert_eq!(fixture.opened_models.load(Ordering::SeqCst), 0);
    assert_eq!(fixture.scheduler.worker_threads.lock().len(), 0);
    fixture.release_batches(1);
    fixture
        .spawn_submit("a", unit_cost_items(1..2))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fixture.opened_models.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn background_open_finishes_before_the_first_request() {
    let fixture = scheduler_fixture(2, 4, 10, MaxUsefulBatchCost::UpToCost(0.0));
    fixture.release_batches(100);
    fixture.scheduler.open_model_in_background().unwrap();
    let opened = async {
        while fixture.opened_models.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), opened)
        .await
        .unwrap();
    assert_eq!(fixture.scheduler.stats(), ModelStats::default());
    fixture
        .spawn_submit("a", unit_cost_items(1..9))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fixture.opened_models.load(Ordering::SeqCst), 2);
    fixture.scheduler.close();
    assert_eq!(
        fixture.scheduler.open_model_in_background().unwrap_err().kind(),
        "model-failed"
    );
}

#[tokio::test]
async fn a_batch_is_formed_across_tenants() {
    let fixture = scheduler_fixture(1, 8, 100, MaxUsefulBatchCost::AnySize);
    let first = fixture.spawn_submit("a", unit_cost_items(1..2));
    fixture.wait_for_stats(|s| s.busy_workers == 1).await;
    let others: Vec<_> = ["b", "c", "d"]
        .map(|t| fixture.spawn_submit(t, unit_cost_items(1..3)))
        .into();
    fixture.wait_for_stats(|s| s.queued_requests == 6).await;
    fixture.release_batches(2);
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(*fixture.batch_sizes.lock(), [1, 6]);
}

#[tokio::test]
async fn tenant_with_a_full_queue_waits_and_others_do_not() {
    let fixture = scheduler_fixture(1, 2, 4, MaxUsefulBatchCost::AnySize);
    let crowd = fixture.spawn_submit("crowd", unit_cost_items(100..130));
    fixture
        .wait_for_stats(|s| s.busy_workers == 1 && s.queued_requests == 4)
        .await;
    let other = fixture.spawn_submit("other", unit_cost_items(1..2));
    fixture.wait_for_stats(|s| s.queued_requests == 5).await;
    fixture.release_batches(2);
    assert_eq!(other.await.unwrap().unwrap(), [1]);
    fixture.release_batches(100);
    assert_eq!(crowd.await.unwrap().unwrap().len(), 30);
}

#[tokio::test]
async fn tenant_with_too_many_pending_requests_is_refused_alone() {
    let fixture = scheduler_fixture(1, 2, 4, MaxUsefulBatchCost::AnySize);
    let calls: Vec<_> = (0..16)
        .map(|_| fixture.spawn_submit("a", unit_cost_items(100..104)))
        .collect();
    fixture
        .wait_for_stats(|s| s.busy_workers == 1 && s.queued_requests == 4)
        .await;
    fixture
        .wait_for_pending_requests(&scheduling_context_of("a"), 64)
        .await;
    let refused = fixture.spawn_submit("a", unit_cost_items(1..2)).await.unwrap();
    assert_eq!(refused.unwrap_err().kind(), "model-queue-full");
    let other = fixture.spawn_submit("b", unit_cost_items(1..2));
    fixture.wait_for_stats(|s| s.queued_requests == 5).await;
    fixture.release_batches(100);
    assert_eq!(other.await.unwrap().unwrap(), [1]);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(
        fixture
            .spawn_submit("a", unit_cost_items(1..2))
            .await
            .unwrap()
            .unwrap(),
        [1]
    );
}

#[tokio::test]
async fn interactive_call_is_not_blocked_by_bulk_queue() {
    let fixture = scheduler_fixture(1, 2, 4, MaxUsefulBatchCost::AnySize);
    let pages: Vec<_> = (0..16)
        .map(|_| fixture.spawn_submit("a", unit_cost_items(100..104)))
        .collect();
    fixture
        .wait_for_stats(|s| s.busy_workers == 1 && s.queued_requests == 4)
        .await;
    fixture
        .wait_for_pending_requests(&scheduling_context_of("a"), 64)
        .await;
    let search = SchedulingContext {
        lane: PriorityLane::Interactive,
        ..scheduling_context_of("a")
    };
    let scheduler = Arc::clone(&fixture.scheduler);
    let search = tokio::spawn(async move {
        scheduler
            .submit_and_await_results(&search, unit_cost_items(1..2))
            .await
    });
    fixture.wait_for_stats(|s| s.queued_requests == 5).await;
    // The next batch contains the interactive request.
    fixture.release_batches(2);
    assert_eq!(search.await.unwrap().unwrap(), [1]);
    pages.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn dropped_call_leaves_the_queue_and_frees_its_slots() {
    let fixture = scheduler_fixture(1, 2, 6, MaxUsefulBatchCost::AnySize);
    let running = fixture.spawn_submit("a", unit_cost_items(100..102));
    fixture.wait_for_stats(|s| s.busy_workers == 1).await;
    let dropped = fixture.spawn_submit("a", unit_cost_items(200..230));
    fixture.wait_for_stats(|s| s.queued_requests == 6).await;
    dropped.abort();
    fixture.wait_for_stats(|s| s.queued_requests == 0).await;
    let next = fixture.spawn_submit("a", unit_cost_items(300..306));
    fixture.wait_for_stats(|s| s.queued_requests == 6).await;
    fixture.release_batches(4);
    running.await.unwrap().unwrap();
    next.await.unwrap().unwrap();
    assert_eq!(fixture.scheduler.stats().requests, 8);
}

#[tokio::test]
async fn failed_request_fails_only_its_call() {
    let fixture = scheduler_fixture(1, 4, 100, MaxUsefulBatchCost::AnySize);
    let first = fixture.spawn_submit("a", unit_cost_items(1..2));
    fixture.wait_for_stats(|s| s.busy_workers == 1).await;
    let bad = fixture.spawn_submit("b", vec![(13, 1.0)]);
    let good = fixture.spawn_submit("c", unit_cost_items(1..4));
    fixture.wait_for_stats(|s| s.queued_requests == 4).await;
    fixture.release_batches(2);
    first.await.unwrap().unwrap();
    assert_eq!(bad.await.unwrap().unwrap_err().kind(), "model-input");
    assert_eq!(good.await.unwrap().unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn panic_fails_its_batch_and_reopens_the_model() {
    let fixture = scheduler_fixture(1, 1, 100, MaxUsefulBatchCost::AnySize);
    fixture.release_batches(2);
    let panicked = fixture.spawn_submit("a", vec![(666, 1.0)]).await.unwrap();
    assert_eq!(panicked.unwrap_err().kind(), "model-failed");
    assert_eq!(
        fixture
            .spawn_submit("a", unit_cost_items(1..2))
            .await
            .unwrap()
            .unwrap(),
        [1]
    );
    assert_eq!(fixture.opened_models.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn model_that_cannot_be_opened_is_retried() {
    let missing = Arc::new(AtomicUsize::new(1));
    let scheduler_config = SchedulerConfig {
        model_name: "fake",
        workers: 1,
        max_batch: 4,
        max_queued_per_tenant: 10,
        max_useful_batch_cost: MaxUsefulBatchCost::UpToCost(0.0),
        latency_boost: Duration::ZERO,
        niceness: 0,
        usage_meter: None,
    };
    struct EchoModel;
    impl BatchRunningModel<u32, u32> for EchoModel {
        fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, u32, u32>>) {
            for request in batch {
                let item = request.item;
                request.send_result(Ok(item));
            }
        }
    }
    let model_missing = Arc::clone(&missing);
    let recorder = PrometheusBuilder::new().build_recorder();
    let scheduler = metrics::with_local_recorder(&recorder, || {
        Scheduler::new(scheduler_config, move |_| {
            match model_missing.load(Ordering::SeqCst) {
                0 => Ok(Box::new(EchoModel)),
                _ => Err(crate::onnx_runtime::missing_file_error("fake.onnx")),
            }
        })
    });
    // Only one request: with several, the first failure would remove the queued ones.
    let error = scheduler
        .submit_and_await_results(&scheduling_context_of("a"), unit_cost_items(1..2))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "fake.onnx is not available: run `make setup`");
    missing.store(0, Ordering::SeqCst);
    assert_eq!(
        scheduler
            .submit_and_await_results(&scheduling_context_of("a"), unit_cost_items(1..4))
            .await
            .unwrap(),
        [1, 2, 3]
    );
    let text = recorder.handle().render();
    assert!(
        text.contains("weir_model_request_failures_total{model=\"fake\"} 1\n"),
        "{text}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn model_threads_have_the_configured_niceness() {
    struct NicenessModel;
    impl BatchRunningModel<(), i32> for NicenessModel {
        fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, (), i32>>) {
            for request in batch {
                let thread = Some(rustix::thread::gettid());
                request.send_result(Ok(rustix::process::getpriority_process(thread).unwrap()));
            }
        }
    }
    let scheduler_config = SchedulerConfig {
        model_name: "fake",
        workers: 1,
        max_batch: 1,
        max_queued_per_tenant: 1,
        max_useful_batch_cost: MaxUsefulBatchCost::AnySize,
        latency_boost: Duration::ZERO,
        niceness: 7,
        usage_meter: None,
    };
    let scheduler = Scheduler::new(scheduler_config, |_| Ok(Box::new(NicenessModel)));
    let niceness = scheduler
        .submit_and_await_results(&scheduling_context_of("a"), vec![((), 1.0)])
        .await
        .unwrap();
    assert_eq!(niceness, [7]);
}

#[tokio::test]
async fn closing_fails_waiting_calls_and_leaves_no_thread() {
    let fixture = scheduler_fixture(2, 2, 100, MaxUsefulBatchCost::UpToCost(0.0));
    let call = fixture.spawn_submit("a", unit_cost_items(100..130));
    fixture.wait_for_stats(|s| s.busy_workers == 2).await;
    let closing = Arc::clone(&fixture.scheduler);
    let closed = std::thread::spawn(move || closing.close());
    fixture.wait_for_stats(|s| s.queued_requests == 0).await;
    drop(fixture.open_gate);
    closed.join().unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().kind(), "model-failed");
    assert_eq!(fixture.scheduler.worker_threads.lock().len(), 0);
    let late = fixture
        .scheduler
        .submit_and_await_results(&scheduling_context_of("a"), unit_cost_items(1..2))
        .await;
    assert_eq!(late.unwrap_err().kind(), "model-failed");
}

#[derive(Default)]
struct RecordingMeter(Mutex<BTreeMap<TenantId, u64>>);

impl UsageMeter for RecordingMeter {
    fn record_usage(&self, tenant: &TenantId, usage: &Usage) {
        *self.0.lock().entry(tenant.clone()).or_default() += usage.inference_micros;
    }
}

#[tokio::test]
async fn batch_time_is_metered_to_tenants_by_cost() {
    let usage_meter = Arc::new(RecordingMeter::default());
    let fixture = metered_scheduler_fixture(
        1,
        8,
        100,
        MaxUsefulBatchCost::AnySize,
        Some(Arc::clone(&usage_meter) as _),
    );
    let first = fixture.spawn_submit("first", unit_cost_items(0..1));
    fixture.wait_for_stats(|s| s.busy_workers == 1).await;
    let long = fixture.spawn_submit("long", vec![(1, 20.0), (2, 10.0)]);
    let short = fixture.spawn_submit("short", vec![(3, 10.0)]);
    fixture.wait_for_stats(|s| s.queued_requests == 3).await;
    fixture.release_batches(1);
    first.await.unwrap().unwrap();
    fixture.wait_for_stats(|s| s.requests == 4).await;
    // Duration of the batch.
    tokio::time::sleep(Duration::from_millis(20)).await;
    fixture.release_batches(1);
    long.await.unwrap().unwrap();
    short.await.unwrap().unwrap();
    fixture.wait_for_stats(|s| s.busy_workers == 0).await;
    let micros = |tenant: &str| usage_meter.0.lock()[&tenant.parse().unwrap()];
    let (long, short) = (micros("long"), micros("short"));
    assert!(long + short >= 19_000, "{long} + {short}");
    assert!((short * 3).abs_diff(long) <= 4, "{long} and {short}");
    assert!(micros("first") > 0);
}

#[tokio::test]
async fn metrics_report_batches_and_queued_requests() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let value = |name: &str| -> f64 {
        let text = recorder.handle().render();
        let name = format!("{name}{{model=\"fake\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    };
    let fixture = metrics::with_local_recorder(&recorder, || {
        scheduler_fixture(1, 8, 100, MaxUsefulBatchCost::AnySize)
    });
    let first = fixture.spawn_submit("a", unit_cost_items(0..1));
    fixture.wait_for_stats(|s| s.busy_workers == 1).await;
    let others = fixture.spawn_submit("a", unit_cost_items(1..6));
    let dropped = fixture.spawn_submit("b", unit_cost_items(6..9));
    fixture.wait_for_stats(|s| s.queued_requests == 8).await;
    assert_eq!(value("weir_model_requests_queued"), 8.0);
    dropped.abort();
    fixture.wait_for_stats(|s| s.queued_requests == 5).await;
    assert_eq!(value("weir_model_requests_queued"), 5.0);
    fixture.release_batches(2);
    first.await.unwrap().unwrap();
    others.await.unwrap().unwrap();
    fixture.wait_for_stats(|s| s.busy_workers == 0).await;
    assert_eq!(value("weir_model_requests_queued"), 0.0);
    assert_eq!(value("weir_model_batch_size_count"), 2.0);
    assert_eq!(value("weir_model_batch_size_sum"), 6.0);
    assert_eq!(value("weir_model_batch_duration_seconds_count"), 2.0);
}
