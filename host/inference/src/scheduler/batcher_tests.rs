//! Tests of the batcher in simulated time.

use weir_core::{PriorityLane, TenantId};

use super::*;

/// A simulation: requests arrive at given times, and a batch of `n` takes `batch_time + time_per_request × n`.
struct BatchSimulation {
    batcher: Batcher<Arrival>,
    batch_time: Duration,
    time_per_request: Duration,
    arrivals: Vec<Arrival>,
}

#[derive(Clone, Debug)]
struct Arrival {
    flow: Flow,
    arrived_at: Duration,
    linger: Duration,
}

#[derive(Debug)]
struct DispatchedRequest {
    tenant: TenantId,
    group: u64,
    dispatched_at: Duration,
    wait_time: Duration,
    batch_size: usize,
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn requests_at(tenant: &str, at: Duration, count: usize) -> Vec<Arrival> {
    let one = Arrival {
        flow: Flow {
            lane: PriorityLane::Bulk,
            tenant: tenant.parse().unwrap(),
            group: 0,
            weight: 1.0,
        },
        arrived_at: at,
        linger: millis(500),
    };
    vec![one; count]
}

impl BatchSimulation {
    fn new(workers: usize, max_batch_size: usize, gain: MaxUsefulBatchCost) -> Self {
        Self::with_credit(workers, max_batch_size, gain, Duration::ZERO)
    }

    fn with_credit(
        workers: usize,
        max_batch_size: usize,
        gain: MaxUsefulBatchCost,
        credit: Duration,
    ) -> Self {
        let config = SchedulerConfig {
            model_name: "fake",
            workers,
            max_batch: max_batch_size,
            max_queued_per_tenant: 1000,
            max_useful_batch_cost: gain,
            latency_boost: credit,
            niceness: 0,
            usage_meter: None,
        };
        Self {
            batcher: Batcher::new(&config),
            batch_time: millis(10),
            time_per_request: millis(10),
            arrivals: Vec::new(),
        }
    }

    fn simulate(mut self) -> Vec<DispatchedRequest> {
        self.arrivals.sort_by_key(|a| a.arrived_at);
        let mut pending = self.arrivals.into_iter().peekable();
        let mut worker_runs: Vec<Option<(Duration, Duration, Vec<FlowBatchCharge>)>> = Vec::new();
        worker_runs.resize_with(self.batcher.workers, || None);
        let (mut dispatched, mut now) = (Vec::new(), Duration::ZERO);
        loop {
            for end in &mut worker_runs {
                if let Some((_, took, charges)) = end.take_if(|(end, ..)| *end <= now) {
                    self.batcher.charge_actual_batch_time(&charges, took);
                    self.batcher.mark_batch_done();
                }
            }
            while let Some(arrival) = pending.next_if(|a| a.arrived_at <= now) {
                let flow = arrival.flow.clone();
                let request = QueuedItem {
                    call_id: 0,
                    cost: 1.0,
                    charged_seconds: 0.0,
                    dispatch_deadline: arrival.arrived_at + arrival.linger,
                    item: arrival,
                };
                self.batcher.push(&flow, request);
            }
            let mut wake = pending.peek().map(|a| a.arrived_at);
            for end in &mut worker_runs {
                if end.is_none() {
                    match self.batcher.take_next_worker_action(now) {
                        WorkerAction::RunBatch(batch) => {
                            let size = batch.len();
                            let took = self.batch_time + self.time_per_request * u32::try_from(size).unwrap();
                            let charges = batch.iter().map(|r| FlowBatchCharge {
                                flow: r.item.flow.clone(),
                                cost: r.cost,
                                charged_seconds: r.charged_seconds,
                            });
                            *end = Some((now + took, took, charges.collect()));
                            dispatched.extend(batch.into_iter().map(|r| DispatchedRequest {
                                wait_time: now - r.item.arrived_at,
                                tenant: r.item.flow.tenant,
                                group: r.item.flow.group,
                                dispatched_at: now,
                                batch_size: size,
                            }));
                        }
                        WorkerAction::WaitUntil(due) => {
                            assert!(due > now);
                            wake = Some(wake.map_or(due, |w| w.min(due)));
                        }
                        WorkerAction::WaitForRequest => {}
                    }
                }
            }
            let ends = worker_runs.iter().flatten().map(|(end, ..)| *end);
            match ends.chain(wake).min() {
                Some(next) => now = next,
                None => return dispatched,
            }
        }
    }
}

#[test]
fn backlog_of_one_tenant_delays_another_by_one_batch() {
    let mut simulation = BatchSimulation::new(1, 8, MaxUsefulBatchCost::AnySize);
    simulation.arrivals = requests_at("crowd", millis(0), 1000);
    simulation.arrivals.extend(requests_at("late", millis(95), 3));
    let dispatched = simulation.simulate();
    assert_eq!(dispatched.len(), 1003);
    // A batch of eight takes 90 ms, so the batch that starts at 90 ms ends at 180 ms.
    for one in dispatched.iter().filter(|l| l.tenant.as_str() == "late") {
        assert_eq!(one.dispatched_at, millis(180), "{one:?}");
    }
}

#[test]
fn latency_boost_finishes_a_short_job_beside_long_ones() {
    // By then the long jobs, which were idle once, too, have used their own credits.
    const ARRIVAL: u64 = 10_001;
    let last_dispatch = |credit| {
        let mut simulation = BatchSimulation::with_credit(2, 1, MaxUsefulBatchCost::UpToCost(0.0), credit);
        for n in 0..10 {
            let long = requests_at(&format!("long{n}"), millis(0), 300);
            simulation.arrivals.extend(long);
        }
        simulation
            .arrivals
            .extend(requests_at("short", millis(ARRIVAL), 20));
        let dispatched = simulation.simulate();
        let short = dispatched.iter().filter(|l| l.tenant.as_str() == "short");
        short.map(|l| l.dispatched_at).max().unwrap()
    };
    // Two workers take 20 ms for each of the 20 requests: 200 ms if the job were alone, and eleven times as long if it
    // alternates with ten others.
    let after = |credit| last_dispatch(credit) - millis(ARRIVAL);
    let (without, with) = (after(millis(0)), after(millis(500)));
    assert!(without > millis(1900), "{without:?}");
    assert!(with <= millis(220), "{with:?}");
    // The credit is bounded: a job that needs twice the credit alternates with the others for its second half.
    let half = after(millis(100));
    assert!(half > millis(900) && half < millis(1300), "{half:?}");
}

#[test]
fn documents_of_a_tenant_share_its_model_time() {
    let mut simulation = BatchSimulation::new(1, 1, MaxUsefulBatchCost::UpToCost(0.0));
    simulation.arrivals = requests_at("a", millis(0), 300);
    simulation.arrivals.extend(requests_at("b", millis(0), 300));
    let second = requests_at("a", millis(101), 3).into_iter().map(|mut request| {
        request.flow.group = 1;
        request
    });
    simulation.arrivals.extend(second);
    let dispatched = simulation.simulate();
    let last = dispatched
        .iter()
        .filter(|l| l.group == 1)
        .map(|l| l.dispatched_at)
        .max();
    // Every fourth request is one of the second document, at 20 ms each.
    assert!(last.is_some_and(|last| last <= millis(101 + 14 * 20)), "{last:?}");
}

#[test]
fn requests_are_charged_the_time_they_took() {
    let simulation = BatchSimulation::new(1, 1, MaxUsefulBatchCost::UpToCost(0.0));
    let mut batcher = simulation.batcher;
    let item = |call_id| QueuedItem {
        call_id,
        cost: 2.0,
        charged_seconds: 0.0,
        dispatch_deadline: Duration::ZERO,
        item: requests_at("a", Duration::ZERO, 1).remove(0),
    };
    let flow = item(0).item.flow;
    let charge = |charged_seconds| FlowBatchCharge {
        flow: flow.clone(),
        cost: 2.0,
        charged_seconds,
    };
    batcher.push(&flow, item(1));
    let first = batcher.queue.pop().unwrap();
    assert_eq!(first.charged_seconds, 0.0);
    assert_eq!(
        batcher.charge_actual_batch_time(&[charge(0.0)], millis(500)),
        [0.5]
    );
    batcher.push(&flow, item(2));
    let second = batcher.queue.pop().unwrap();
    assert!((second.charged_seconds - 0.5).abs() < 1e-9);
    assert_eq!(
        batcher.charge_actual_batch_time(&[charge(0.5), charge(0.5)], millis(500)),
        [0.25; 2]
    );
    batcher.push(&flow, item(3));
    let third = batcher.queue.pop().unwrap().charged_seconds;
    assert!((0.3..0.4).contains(&third), "{third}");
    batcher.push(&flow, item(4));
    batcher.push(&flow, item(5));
    assert_eq!(
        (
            batcher.remove_requests_of_call(&flow, 4),
            batcher.queued_request_count()
        ),
        (1, 1)
    );
}

#[test]
fn lone_request_is_dispatched_at_once_when_idle() {
    for gain in [MaxUsefulBatchCost::AnySize, MaxUsefulBatchCost::UpToCost(1.0)] {
        let mut simulation = BatchSimulation::new(2, 8, gain);
        simulation.arrivals = requests_at("a", millis(3), 1);
        let dispatched = simulation.simulate();
        assert_eq!(
            (dispatched[0].wait_time, dispatched[0].batch_size),
            (millis(0), 1)
        );
    }
}

#[test]
fn partial_batch_lingers_only_while_the_device_is_busy() {
    let mut simulation = BatchSimulation::new(2, 8, MaxUsefulBatchCost::AnySize);
    simulation.batch_time = millis(5000);
    simulation.arrivals = requests_at("a", millis(0), 8);
    simulation.arrivals.extend(requests_at("a", millis(10), 3));
    simulation.arrivals.extend(requests_at("a", millis(100), 2));
    let dispatched = simulation.simulate();
    let partial: Vec<_> = dispatched.iter().filter(|l| l.batch_size != 8).collect();
    assert_eq!(partial.len(), 5);
    assert!(
        partial
            .iter()
            .all(|l| l.dispatched_at == millis(510) && l.batch_size == 5),
        "{partial:?}"
    );
    assert_eq!(partial.iter().map(|l| l.wait_time).max(), Some(millis(500)));
}

#[test]
fn a_full_batch_does_not_linger() {
    let mut simulation = BatchSimulation::new(2, 8, MaxUsefulBatchCost::AnySize);
    simulation.batch_time = millis(5000);
    simulation.arrivals = requests_at("a", millis(0), 8);
    simulation.arrivals.extend(requests_at("b", millis(10), 5));
    simulation.arrivals.extend(requests_at("c", millis(20), 3));
    let dispatched = simulation.simulate();
    assert!(dispatched.iter().all(|l| l.batch_size == 8), "{dispatched:?}");
    assert!(
        dispatched.iter().all(|l| l.dispatched_at <= millis(20)),
        "{dispatched:?}"
    );
}

#[test]
fn small_batch_gain_spreads_requests_over_workers() {
    let mut simulation = BatchSimulation::new(4, 8, MaxUsefulBatchCost::UpToCost(100.0));
    simulation.arrivals = requests_at("a", millis(0), 8);
    let dispatched = simulation.simulate();
    assert!(
        dispatched
            .iter()
            .all(|l| l.dispatched_at == millis(0) && l.batch_size == 2),
        "{dispatched:?}"
    );
}

#[test]
fn batch_cost_stops_at_the_gain_limit() {
    for (max_cost, size) in [(0.0, 1), (1.0, 1), (3.0, 3), (100.0, 8)] {
        let mut simulation = BatchSimulation::new(1, 8, MaxUsefulBatchCost::UpToCost(max_cost));
        simulation.arrivals = requests_at("a", millis(0), 24);
        let dispatched = simulation.simulate();
        assert!(
            dispatched.iter().all(|l| l.batch_size == size),
            "{max_cost} {dispatched:?}"
        );
    }
}

#[test]
fn no_worker_is_idle_while_requests_are_queued() {
    let mut simulation = BatchSimulation::new(3, 4, MaxUsefulBatchCost::UpToCost(2.0));
    for n in 0..200 {
        simulation.arrivals.extend(requests_at("a", millis(n * 7), 1));
    }
    let dispatched = simulation.simulate();
    assert_eq!(dispatched.len(), 200);
    assert!(dispatched.iter().all(|l| l.wait_time <= millis(20)));
}
