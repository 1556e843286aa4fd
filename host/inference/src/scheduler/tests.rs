//! The scheduler with threads and a model that does what it is told.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use weir_core::Lane;
use weir_core::usage::Usage;

use super::*;

/// Answers an item with itself, once the test lets it: `gate` yields one unit for each batch.
struct Gated {
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
    sizes: Arc<Mutex<Vec<usize>>>,
}

impl Model<u32, u32> for Gated {
    fn run(&mut self, batch: Vec<Job<'_, u32, u32>>) {
        self.sizes.lock().push(batch.len());
        if self.gate.lock().recv().is_err() {
            return;
        }
        for job in batch {
            let answer = match job.item {
                13 => Err(InferenceError::Input {
                    model: "fake".into(),
                    reason: "13".into(),
                }),
                666 => panic!("the model is told to panic"),
                n => Ok(n),
            };
            job.answer(answer);
        }
    }
}

struct Bench {
    scheduler: Arc<Scheduler<u32, u32>>,
    open_gate: mpsc::Sender<()>,
    sizes: Arc<Mutex<Vec<usize>>>,
    opened: Arc<AtomicUsize>,
}

fn bench(workers: usize, batch: usize, room: usize, gain: Gain) -> Bench {
    metered(workers, batch, room, gain, None)
}

fn metered(workers: usize, batch: usize, room: usize, gain: Gain, meter: Option<Arc<dyn Meter>>) -> Bench {
    let (open_gate, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let (sizes, opened) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let sharing = Sharing {
        name: "fake",
        workers,
        batch,
        room,
        gain,
        niceness: 0,
        meter,
    };
    let (model_sizes, model_opened) = (Arc::clone(&sizes), Arc::clone(&opened));
    let scheduler = Scheduler::new(sharing, move |_| {
        model_opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Gated {
            gate: Arc::clone(&gate),
            sizes: Arc::clone(&model_sizes),
        }))
    });
    Bench {
        scheduler: Arc::new(scheduler),
        open_gate,
        sizes,
        opened,
    }
}

pub(super) fn account(tenant: &str) -> Account {
    Account {
        tenant: tenant.parse().unwrap(),
        lane: Lane::Bulk,
        linger: Duration::from_millis(500),
        weight: 1.0,
    }
}

fn items(range: std::ops::Range<u32>) -> Vec<(u32, f64)> {
    range.map(|n| (n, 1.0)).collect()
}

impl Bench {
    fn submit(
        &self,
        tenant: &str,
        items: Vec<(u32, f64)>,
    ) -> tokio::task::JoinHandle<Result<Vec<u32>, InferenceError>> {
        let (scheduler, account) = (Arc::clone(&self.scheduler), account(tenant));
        tokio::spawn(async move { scheduler.submit(&account, items).await })
    }

    /// Waits until the statistics are as wanted.
    async fn until(&self, wanted: impl Fn(ModelStats) -> bool) {
        let all = async {
            while !wanted(self.scheduler.stats()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap_or_else(|_| panic!("never reached, at {:?}", self.scheduler.stats()));
    }

    /// Waits until so many requests of a tenant are under way.
    async fn under_way(&self, account: &Account, requests: usize) {
        let share = self.scheduler.share_of(account);
        let all = async {
            while share.under_way.load(Ordering::SeqCst) < requests {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    }

    fn let_through(&self, batches: usize) {
        for _ in 0..batches {
            self.open_gate.send(()).unwrap();
        }
    }
}

#[tokio::test]
async fn answers_come_in_order_across_batches_and_workers() {
    let bench = bench(3, 4, 1000, Gain::Fill);
    bench.let_through(1000);
    let calls: Vec<_> = (0..20u32)
        .map(|n| bench.submit("a", items(n * 100 + 20..n * 100 + 57)))
        .collect();
    for (n, call) in (0..20u32).zip(calls) {
        let wanted: Vec<u32> = (n * 100 + 20..n * 100 + 57).collect();
        assert_eq!(call.await.unwrap().unwrap(), wanted);
    }
    let stats = bench.scheduler.stats();
    assert_eq!((stats.requests, stats.waiting), (20 * 37, 0));
    assert!(stats.largest_batch <= 4);
    assert!(bench.sizes.lock().iter().all(|n| *n <= 4));
}

#[tokio::test]
async fn nothing_is_opened_before_the_first_request() {
    let bench = bench(2, 4, 10, Gain::UpTo(0.0));
    assert_eq!(bench.opened.load(Ordering::SeqCst), 0);
    assert_eq!(bench.scheduler.threads.lock().len(), 0);
    bench.let_through(1);
    bench.submit("a", items(1..2)).await.unwrap().unwrap();
    assert_eq!(bench.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_warm_model_is_open_before_the_first_request() {
    let bench = bench(2, 4, 10, Gain::UpTo(0.0));
    bench.let_through(100);
    bench.scheduler.warm().unwrap();
    let opened = async {
        while bench.opened.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), opened)
        .await
        .unwrap();
    assert_eq!(bench.scheduler.stats(), ModelStats::default());
    bench.submit("a", items(1..9)).await.unwrap().unwrap();
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2);
    bench.scheduler.close();
    assert_eq!(bench.scheduler.warm().unwrap_err().kind(), "model-failed");
}

#[tokio::test]
async fn a_batch_is_formed_across_tenants() {
    let bench = bench(1, 8, 100, Gain::Fill);
    let first = bench.submit("a", items(1..2));
    bench.until(|s| s.running == 1).await;
    let others: Vec<_> = ["b", "c", "d"].map(|t| bench.submit(t, items(1..3))).into();
    bench.until(|s| s.waiting == 6).await;
    bench.let_through(2);
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(*bench.sizes.lock(), [1, 6]);
}

#[tokio::test]
async fn a_crowded_tenant_waits_for_room_and_another_does_not() {
    let bench = bench(1, 2, 4, Gain::Fill);
    let crowd = bench.submit("crowd", items(100..130));
    bench.until(|s| s.running == 1 && s.waiting == 4).await;
    let other = bench.submit("other", items(1..2));
    bench.until(|s| s.waiting == 5).await;
    bench.let_through(2);
    assert_eq!(other.await.unwrap().unwrap(), [1]);
    bench.let_through(100);
    assert_eq!(crowd.await.unwrap().unwrap().len(), 30);
}

#[tokio::test]
async fn a_tenant_without_end_is_refused_and_others_are_not() {
    let bench = bench(1, 2, 4, Gain::Fill);
    let calls: Vec<_> = (0..16).map(|_| bench.submit("a", items(100..104))).collect();
    bench.until(|s| s.running == 1 && s.waiting == 4).await;
    bench.under_way(&account("a"), 64).await;
    let refused = bench.submit("a", items(1..2)).await.unwrap();
    assert_eq!(refused.unwrap_err().kind(), "model-queue-full");
    let other = bench.submit("b", items(1..2));
    bench.until(|s| s.waiting == 5).await;
    bench.let_through(100);
    assert_eq!(other.await.unwrap().unwrap(), [1]);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(bench.submit("a", items(1..2)).await.unwrap().unwrap(), [1]);
}

#[tokio::test]
async fn a_search_finds_room_beside_its_tenants_own_pages() {
    let bench = bench(1, 2, 4, Gain::Fill);
    let pages: Vec<_> = (0..16).map(|_| bench.submit("a", items(100..104))).collect();
    bench.until(|s| s.running == 1 && s.waiting == 4).await;
    bench.under_way(&account("a"), 64).await;
    let search = Account {
        lane: Lane::Interactive,
        ..account("a")
    };
    let scheduler = Arc::clone(&bench.scheduler);
    let search = tokio::spawn(async move { scheduler.submit(&search, items(1..2)).await });
    bench.until(|s| s.waiting == 5).await;
    // The next batch has it.
    bench.let_through(2);
    assert_eq!(search.await.unwrap().unwrap(), [1]);
    pages.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_dropped_call_leaves_the_queue_and_gives_back_its_room() {
    let bench = bench(1, 2, 6, Gain::Fill);
    let running = bench.submit("a", items(100..102));
    bench.until(|s| s.running == 1).await;
    let dropped = bench.submit("a", items(200..230));
    bench.until(|s| s.waiting == 6).await;
    dropped.abort();
    bench.until(|s| s.waiting == 0).await;
    let next = bench.submit("a", items(300..306));
    bench.until(|s| s.waiting == 6).await;
    bench.let_through(4);
    running.await.unwrap().unwrap();
    next.await.unwrap().unwrap();
    assert_eq!(bench.scheduler.stats().requests, 8);
}

#[tokio::test]
async fn one_failed_request_fails_its_call_alone() {
    let bench = bench(1, 4, 100, Gain::Fill);
    let first = bench.submit("a", items(1..2));
    bench.until(|s| s.running == 1).await;
    let bad = bench.submit("b", vec![(13, 1.0)]);
    let good = bench.submit("c", items(1..4));
    bench.until(|s| s.waiting == 4).await;
    bench.let_through(2);
    first.await.unwrap().unwrap();
    assert_eq!(bad.await.unwrap().unwrap_err().kind(), "model-input");
    assert_eq!(good.await.unwrap().unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_the_model_is_opened_again() {
    let bench = bench(1, 1, 100, Gain::Fill);
    bench.let_through(2);
    let panicked = bench.submit("a", vec![(666, 1.0)]).await.unwrap();
    assert_eq!(panicked.unwrap_err().kind(), "model-failed");
    assert_eq!(bench.submit("a", items(1..2)).await.unwrap().unwrap(), [1]);
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_model_that_cannot_be_opened_is_tried_again() {
    let missing = Arc::new(AtomicUsize::new(1));
    let sharing = Sharing {
        name: "fake",
        workers: 1,
        batch: 4,
        room: 10,
        gain: Gain::UpTo(0.0),
        niceness: 0,
        meter: None,
    };
    struct Echo;
    impl Model<u32, u32> for Echo {
        fn run(&mut self, batch: Vec<Job<'_, u32, u32>>) {
            for job in batch {
                let item = job.item;
                job.answer(Ok(item));
            }
        }
    }
    let model_missing = Arc::clone(&missing);
    let recorder = PrometheusBuilder::new().build_recorder();
    let scheduler = metrics::with_local_recorder(&recorder, || {
        Scheduler::new(sharing, move |_| match model_missing.load(Ordering::SeqCst) {
            0 => Ok(Box::new(Echo)),
            _ => Err(crate::runtime::missing("fake.onnx")),
        })
    });
    // Of several the first to fail would withdraw those that still wait.
    let error = scheduler.submit(&account("a"), items(1..2)).await.unwrap_err();
    assert_eq!(error.to_string(), "fake.onnx is not available: run `make setup`");
    missing.store(0, Ordering::SeqCst);
    assert_eq!(
        scheduler.submit(&account("a"), items(1..4)).await.unwrap(),
        [1, 2, 3]
    );
    let text = recorder.handle().render();
    assert!(
        text.contains("weir_model_failures_total{model=\"fake\"} 1\n"),
        "{text}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn model_threads_have_the_niceness_of_the_model() {
    struct Niceness;
    impl Model<(), i32> for Niceness {
        fn run(&mut self, batch: Vec<Job<'_, (), i32>>) {
            for job in batch {
                let thread = Some(rustix::thread::gettid());
                job.answer(Ok(rustix::process::getpriority_process(thread).unwrap()));
            }
        }
    }
    let sharing = Sharing {
        name: "fake",
        workers: 1,
        batch: 1,
        room: 1,
        gain: Gain::Fill,
        niceness: 7,
        meter: None,
    };
    let scheduler = Scheduler::new(sharing, |_| Ok(Box::new(Niceness)));
    let niceness = scheduler.submit(&account("a"), vec![((), 1.0)]).await.unwrap();
    assert_eq!(niceness, [7]);
}

#[tokio::test]
async fn closing_fails_what_waits_and_leaves_no_thread() {
    let bench = bench(2, 2, 100, Gain::UpTo(0.0));
    let call = bench.submit("a", items(100..130));
    bench.until(|s| s.running == 2).await;
    let closing = Arc::clone(&bench.scheduler);
    let closed = std::thread::spawn(move || closing.close());
    bench.until(|s| s.waiting == 0).await;
    drop(bench.open_gate);
    closed.join().unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().kind(), "model-failed");
    assert_eq!(bench.scheduler.threads.lock().len(), 0);
    let late = bench.scheduler.submit(&account("a"), items(1..2)).await;
    assert_eq!(late.unwrap_err().kind(), "model-failed");
}

#[derive(Default)]
struct Book(Mutex<BTreeMap<TenantId, u64>>);

impl Meter for Book {
    fn used(&self, tenant: &TenantId, usage: &Usage) {
        *self.0.lock().entry(tenant.clone()).or_default() += usage.inference_micros;
    }
}

#[tokio::test]
async fn a_batch_is_metered_to_its_tenants_by_what_it_cost() {
    let book = Arc::new(Book::default());
    let bench = metered(1, 8, 100, Gain::Fill, Some(Arc::clone(&book) as _));
    let first = bench.submit("first", items(0..1));
    bench.until(|s| s.running == 1).await;
    let long = bench.submit("long", vec![(1, 20.0), (2, 10.0)]);
    let short = bench.submit("short", vec![(3, 10.0)]);
    bench.until(|s| s.waiting == 3).await;
    bench.let_through(1);
    first.await.unwrap().unwrap();
    bench.until(|s| s.requests == 4).await;
    // What the batch takes.
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.let_through(1);
    long.await.unwrap().unwrap();
    short.await.unwrap().unwrap();
    bench.until(|s| s.running == 0).await;
    let micros = |tenant: &str| book.0.lock()[&tenant.parse().unwrap()];
    let (long, short) = (micros("long"), micros("short"));
    assert!(long + short >= 19_000, "{long} + {short}");
    assert!((short * 3).abs_diff(long) <= 4, "{long} and {short}");
    assert!(micros("first") > 0);
}

#[tokio::test]
async fn recorders_hear_of_batches_and_of_what_waits() {
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
    let bench = metrics::with_local_recorder(&recorder, || bench(1, 8, 100, Gain::Fill));
    let first = bench.submit("a", items(0..1));
    bench.until(|s| s.running == 1).await;
    let others = bench.submit("a", items(1..6));
    let dropped = bench.submit("b", items(6..9));
    bench.until(|s| s.waiting == 8).await;
    assert_eq!(value("weir_model_waiting"), 8.0);
    dropped.abort();
    bench.until(|s| s.waiting == 5).await;
    assert_eq!(value("weir_model_waiting"), 5.0);
    bench.let_through(2);
    first.await.unwrap().unwrap();
    others.await.unwrap().unwrap();
    bench.until(|s| s.running == 0).await;
    assert_eq!(value("weir_model_waiting"), 0.0);
    assert_eq!(value("weir_model_batch_size_count"), 2.0);
    assert_eq!(value("weir_model_batch_size_sum"), 6.0);
    assert_eq!(value("weir_model_seconds_count"), 2.0);
}
