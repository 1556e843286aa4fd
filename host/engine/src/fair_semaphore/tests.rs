use std::time::Duration;

use futures::FutureExt;
use tokio::time::sleep;
use weir_core::PriorityLane;

use super::*;

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn no_boosts() -> Arc<LatencyBoosts> {
    Arc::new(LatencyBoosts::new(Duration::ZERO))
}

fn test_flow(tenant: &str, group: u64) -> Arc<Flow> {
    Arc::new(Flow {
        lane: PriorityLane::Bulk,
        tenant: tenant.parse().unwrap(),
        group,
        weight: 1.0,
    })
}

/// A semaphore whose permits are held by tasks. Each task records its tenant when it gets a permit, and how long it held it.
struct SimulatedWorkers {
    semaphore: FairSemaphore,
    held: Arc<Mutex<Vec<(String, Duration)>>>,
}

impl SimulatedWorkers {
    fn new(capacity: usize) -> Self {
        Self::with_boosts(capacity, &no_boosts())
    }

    fn with_boosts(capacity: usize, boosts: &Arc<LatencyBoosts>) -> Self {
        Self {
            semaphore: FairSemaphore::new(capacity, boosts),
            held: Arc::default(),
        }
    }

    /// Starts tasks that hold a permit for `time` each, and lets them queue.
    async fn submit(&self, count: usize, flow: &Flow, time: Duration) {
        for _ in 0..count {
            let (semaphore, held, flow) = (
                self.semaphore.clone(),
                Arc::clone(&self.held),
                Arc::new(flow.clone()),
            );
            tokio::spawn(async move {
                let _permit = semaphore.acquire(&flow).await;
                held.lock().push((flow.tenant.to_string(), time));
                sleep(time).await;
            });
        }
        sleep(Duration::ZERO).await;
    }

    /// Returns the tenants in the order of their permits, and forgets them.
    fn take_order(&self) -> Vec<String> {
        self.held.lock().drain(..).map(|(tenant, _)| tenant).collect()
    }

    fn seconds_of(&self, tenant: &str) -> f64 {
        let held = self.held.lock();
        let of_tenant = held.iter().filter(|(name, _)| name == tenant);
        of_tenant.map(|(_, time)| time.as_secs_f64()).sum()
    }
}

#[tokio::test(start_paused = true)]
async fn groups_alternate_and_each_is_served_in_order() {
    let semaphore = FairSemaphore::new(1, &no_boosts());
    let held = semaphore.acquire(&test_flow("other", 0)).await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (group, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2")] {
        let (semaphore, served) = (semaphore.clone(), Arc::clone(&served));
        tasks.push(tokio::spawn(async move {
            let _permit = semaphore.acquire(&test_flow("t", group)).await;
            served.lock().push(name);
            sleep(millis(100)).await;
        }));
        tokio::task::yield_now().await;
    }
    sleep(millis(100)).await;
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*served.lock(), ["a1", "b1", "a2", "b2", "a3"]);
}

#[tokio::test]
async fn cancelled_waiter_takes_no_permit() {
    let semaphore = FairSemaphore::new(1, &no_boosts());
    let held = semaphore.acquire(&test_flow("t", 1)).await;
    let (second, third) = (test_flow("t", 2), test_flow("t", 3));
    let mut cancelled = Box::pin(semaphore.acquire(&second));
    assert!((&mut cancelled).now_or_never().is_none());
    let mut waits = Box::pin(semaphore.acquire(&third));
    assert!((&mut waits).now_or_never().is_none());
    drop(cancelled);
    assert_eq!(semaphore.0.state.lock().waiters.len(), 1);
    drop(held);
    assert!(waits.now_or_never().is_some());
    assert!(semaphore.acquire(&second).now_or_never().is_some());
}

#[tokio::test]
async fn granted_but_unreceived_permit_is_returned() {
    let semaphore = FairSemaphore::new(1, &no_boosts());
    let held = semaphore.acquire(&test_flow("t", 1)).await;
    let second = test_flow("t", 2);
    let mut waits = Box::pin(semaphore.acquire(&second));
    assert!((&mut waits).now_or_never().is_none());
    drop(held);
    drop(waits);
    assert!(semaphore.acquire(&second).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn larger_half_is_reserved_for_boosted_tenants() {
    let boosts = Arc::new(LatencyBoosts::new(millis(1000)));
    let (flood, small) = (test_flow("flood", 1), test_flow("small", 2));
    let semaphore = FairSemaphore::new(5, &boosts);
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(semaphore.acquire(&flood).await);
    }
    let mut waits: Vec<_> = (0..5).map(|_| Box::pin(semaphore.acquire(&flood))).collect();
    waits.iter_mut().for_each(|w| assert!(w.now_or_never().is_none()));

    // Returned permits stay free until only two are in use, so the boosted tenant gets one at once.
    boosts.register_job_and_update_boost(&small.tenant, true, Instant::now());
    held.truncate(2);
    waits.iter_mut().for_each(|w| assert!(w.now_or_never().is_none()));
    let boosted = semaphore.acquire(&small).now_or_never().unwrap();
    held.clear();
    let granted: Vec<_> = waits.iter_mut().filter_map(FutureExt::now_or_never).collect();
    assert_eq!(granted.len(), 1);

    drop(boosted);
    boosts.unregister_job(&small.tenant, Instant::now());
    semaphore.grant_permits_to_waiters();
    let granted: Vec<_> = waits
        .into_iter()
        .skip(1)
        .filter_map(FutureExt::now_or_never)
        .collect();
    assert_eq!(granted.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn new_tenant_gets_next_slots_until_it_holds_its_share() {
    let workers = SimulatedWorkers::new(4);
    let (flood, late) = (test_flow("flood", 1), test_flow("late", 2));
    // Four slots that become free one after the other.
    for n in 1..=4 {
        workers.submit(1, &flood, millis(250 * n)).await;
    }
    workers.submit(1000, &flood, millis(1000)).await;
    sleep(millis(10_100)).await;
    workers.take_order();
    workers.submit(10, &late, millis(1000)).await;
    sleep(millis(2000)).await;
    let order = workers.take_order();
    assert_eq!(order[..2], ["late", "late"]);
    let late = order.iter().filter(|tenant| *tenant == "late").count();
    assert!((4..=5).contains(&late), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn service_time_is_shared_by_weight_not_by_page_cost() {
    for capacity in [1, 3, 8] {
        for (weight, heavy_millis, light_millis) in [(3.0, 1000, 1000), (3.0, 4000, 1000), (0.5, 700, 3000)] {
            let workers = SimulatedWorkers::new(capacity);
            let heavy = Flow {
                weight,
                ..(*test_flow("heavy", 1)).clone()
            };
            let pages = 600 * capacity;
            workers.submit(pages, &heavy, millis(heavy_millis)).await;
            workers
                .submit(pages, &test_flow("light", 2), millis(light_millis))
                .await;
            sleep(millis(500_000)).await;
            let ratio = workers.seconds_of("heavy") / workers.seconds_of("light");
            assert!(
                (ratio / weight - 1.0).abs() < 0.03,
                "{ratio} for {weight} with {capacity} slots"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn boosted_tenant_repays_the_boost() {
    let boosts = Arc::new(LatencyBoosts::new(millis(2000)));
    let workers = SimulatedWorkers::with_boosts(2, &boosts);
    let (flood, late) = (test_flow("flood", 1), test_flow("late", 2));
    workers.submit(1000, &flood, millis(100)).await;
    sleep(millis(1000)).await;
    workers.take_order();
    boosts.register_job_and_update_boost(&late.tenant, true, Instant::now());
    workers.submit(1000, &late, millis(100)).await;
    sleep(millis(2000)).await;
    assert!(workers.seconds_of("late") >= 3.6);
    // Now the other tenant goes first until both have had their share.
    boosts.unregister_job(&late.tenant, Instant::now());
    workers.semaphore.grant_permits_to_waiters();
    sleep(millis(20_000)).await;
    let (flood, late) = (workers.seconds_of("flood"), workers.seconds_of("late"));
    assert!((late / flood - 1.0).abs() < 0.03, "{flood} and {late}");
}

#[tokio::test(start_paused = true)]
async fn uncontended_slots_create_no_debt() {
    let workers = SimulatedWorkers::new(1);
    let (early, late) = (test_flow("early", 1), test_flow("late", 2));
    for _ in 0..100 {
        workers.submit(1, &early, millis(1000)).await;
        sleep(millis(1000)).await;
    }
    workers.submit(10, &early, millis(1000)).await;
    workers.submit(10, &late, millis(1000)).await;
    workers.take_order();
    sleep(millis(10_000)).await;
    let order = workers.take_order();
    let early = order.iter().filter(|tenant| *tenant == "early").count();
    assert!((4..=6).contains(&early), "{order:?}");
}
