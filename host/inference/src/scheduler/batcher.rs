//! Decides when a batch starts and how many requests it takes. The time is an argument, as in the queue.
//!
//! On a GPU a batch costs less than its requests one by one. While another worker keeps the GPU busy, a free worker therefore waits
//! until its batch is full, for the linger time at most. If no worker is busy, it takes the queued requests at once.
//!
//! On a CPU a batch costs the sum of its requests, except for requests so small that the overhead of a run matters. A free worker
//! takes its share of the queue at once, but no more than benefits from a single run. The rest stays in the queue, so that an older
//! call or another tenant can go first. The linger time does not apply.

use std::time::Duration;

use super::fair_queue::{FairQueue, FairQueueItem};

/// How much cheaper a batch is than its requests one by one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum BatchGain {
    /// A batch is cheaper only up to this cost. Requests are spread over the idle workers; each takes one, or several small requests up
    /// to this cost.
    UpToCost(f64),
    /// A batch of any size is cheaper: batches are filled.
    AnySize,
}

/// Forms batches and decides what a free worker does.
pub(crate) struct Batcher<T> {
    queue: FairQueue<T>,
    workers: usize,
    busy_workers: usize,
    max_batch: usize,
    gain: BatchGain,
}

/// The next action of a free worker.
pub(crate) enum WorkerAction<T> {
    /// Run these requests, then call [`Batcher::mark_batch_done`].
    RunBatch(Vec<FairQueueItem<T>>),
    /// Ask again at this time, or when a request was added or a batch is done.
    WaitUntil(Duration),
    /// Ask again when a request was added.
    WaitForRequest,
}

impl<T> Batcher<T> {
    /// Creates a batcher for `workers` that take at most `largest` requests each.
    pub(crate) fn new(queue: FairQueue<T>, workers: usize, largest: usize, gain: BatchGain) -> Self {
        Self {
            queue,
            workers,
            busy_workers: 0,
            max_batch: largest.max(1),
            gain,
        }
    }

    /// Returns the queue.
    pub(crate) const fn queue_mut(&mut self) -> &mut FairQueue<T> {
        &mut self.queue
    }

    /// Returns the number of queued requests.
    pub(crate) const fn queued_requests(&self) -> usize {
        self.queue.len()
    }

    /// Returns what a free worker does at time `now`.
    pub(crate) fn next_action(&mut self, now: Duration) -> WorkerAction<T> {
        let waiting = self.queue.len();
        if waiting == 0 {
            return WorkerAction::WaitForRequest;
        }
        let (count, enough) = match self.gain {
            BatchGain::UpToCost(cost) => (
                waiting.div_ceil(self.workers.saturating_sub(self.busy_workers).max(1)),
                cost,
            ),
            BatchGain::AnySize => {
                if let Some(due) = self.queue.earliest_deadline()
                    && waiting < self.max_batch
                    && self.busy_workers > 0
                    && now < due
                {
                    return WorkerAction::WaitUntil(due);
                }
                (waiting, f64::INFINITY)
            }
        };
        self.busy_workers += 1;
        let (mut batch, mut cost) = (Vec::new(), 0.0);
        while batch.len() < count.min(self.max_batch)
            && (batch.is_empty() || cost < enough)
            && let Some(request) = self.queue.pop()
        {
            cost += request.cost;
            batch.push(request);
        }
        WorkerAction::RunBatch(batch)
    }

    /// Records that a worker has finished its batch.
    pub(crate) const fn mark_batch_done(&mut self) {
        self.busy_workers = self.busy_workers.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use weir_core::{Lane, TenantId};

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
        tenant: TenantId,
        lane: Lane,
        arrived_at: Duration,
        linger: Duration,
    }

    #[derive(Debug)]
    struct DispatchedRequest {
        tenant: TenantId,
        dispatched_at: Duration,
        wait_time: Duration,
        batch_size: usize,
    }

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn requests_at(tenant: &str, at: Duration, count: usize) -> Vec<Arrival> {
        let one = Arrival {
            tenant: tenant.parse().unwrap(),
            lane: Lane::Bulk,
            arrived_at: at,
            linger: millis(500),
        };
        vec![one; count]
    }

    impl BatchSimulation {
        fn new(workers: usize, largest: usize, gain: BatchGain) -> Self {
            Self {
                batcher: Batcher::new(FairQueue::new(), workers, largest, gain),
                batch_time: millis(10),
                time_per_request: millis(10),
                arrivals: Vec::new(),
            }
        }

        fn simulate(mut self) -> Vec<DispatchedRequest> {
            self.arrivals.sort_by_key(|a| a.arrived_at);
            let mut pending = self.arrivals.into_iter().peekable();
            let mut free: Vec<Option<Duration>> = vec![None; self.batcher.workers];
            let (mut left, mut now) = (Vec::new(), Duration::ZERO);
            loop {
                for end in &mut free {
                    if end.is_some_and(|e| e <= now) {
                        *end = None;
                        self.batcher.mark_batch_done();
                    }
                }
                while let Some(arrival) = pending.next_if(|a| a.arrived_at <= now) {
                    let (tenant, lane) = (arrival.tenant.clone(), arrival.lane);
                    let request = FairQueueItem {
                        call_id: 0,
                        cost: 1.0,
                        weight: 1.0,
                        dispatch_deadline: arrival.arrived_at + arrival.linger,
                        item: arrival,
                    };
                    self.batcher.queue_mut().push(&tenant, lane, request);
                }
                let mut wake = pending.peek().map(|a| a.arrived_at);
                for end in &mut free {
                    if end.is_none() {
                        match self.batcher.next_action(now) {
                            WorkerAction::RunBatch(batch) => {
                                let size = batch.len();
                                *end = Some(
                                    now + self.batch_time
                                        + self.time_per_request * u32::try_from(size).unwrap(),
                                );
                                left.extend(batch.into_iter().map(|r| DispatchedRequest {
                                    wait_time: now - r.item.arrived_at,
                                    tenant: r.item.tenant,
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
                let ends = free.iter().flatten().copied();
                match ends.chain(wake).min() {
                    Some(next) => now = next,
                    None => return left,
                }
            }
        }
    }

    #[test]
    fn backlog_of_one_tenant_delays_another_by_one_batch() {
        let mut simulation = BatchSimulation::new(1, 8, BatchGain::AnySize);
        simulation.arrivals = requests_at("crowd", millis(0), 1000);
        simulation.arrivals.extend(requests_at("late", millis(95), 3));
        let left = simulation.simulate();
        assert_eq!(left.len(), 1003);
        // A batch of eight takes 90 ms, so the batch that starts at 90 ms ends at 180 ms.
        for one in left.iter().filter(|l| l.tenant.as_str() == "late") {
            assert_eq!(one.dispatched_at, millis(180), "{one:?}");
        }
    }

    #[test]
    fn lone_request_is_dispatched_at_once_when_idle() {
        for gain in [BatchGain::AnySize, BatchGain::UpToCost(1.0)] {
            let mut simulation = BatchSimulation::new(2, 8, gain);
            simulation.arrivals = requests_at("a", millis(3), 1);
            let left = simulation.simulate();
            assert_eq!((left[0].wait_time, left[0].batch_size), (millis(0), 1));
        }
    }

    #[test]
    fn partial_batch_lingers_only_while_the_device_is_busy() {
        let mut simulation = BatchSimulation::new(2, 8, BatchGain::AnySize);
        simulation.batch_time = millis(5000);
        simulation.arrivals = requests_at("a", millis(0), 8);
        simulation.arrivals.extend(requests_at("a", millis(10), 3));
        simulation.arrivals.extend(requests_at("a", millis(100), 2));
        let left = simulation.simulate();
        let partial: Vec<_> = left.iter().filter(|l| l.batch_size != 8).collect();
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
        let mut simulation = BatchSimulation::new(2, 8, BatchGain::AnySize);
        simulation.batch_time = millis(5000);
        simulation.arrivals = requests_at("a", millis(0), 8);
        simulation.arrivals.extend(requests_at("b", millis(10), 5));
        simulation.arrivals.extend(requests_at("c", millis(20), 3));
        let left = simulation.simulate();
        assert!(left.iter().all(|l| l.batch_size == 8), "{left:?}");
        assert!(left.iter().all(|l| l.dispatched_at <= millis(20)), "{left:?}");
    }

    #[test]
    fn small_batch_gain_spreads_requests_over_workers() {
        let mut simulation = BatchSimulation::new(4, 8, BatchGain::UpToCost(100.0));
        simulation.arrivals = requests_at("a", millis(0), 8);
        let left = simulation.simulate();
        assert!(
            left.iter()
                .all(|l| l.dispatched_at == millis(0) && l.batch_size == 2),
            "{left:?}"
        );
    }

    #[test]
    fn batch_cost_stops_at_the_gain_limit() {
        for (enough, size) in [(0.0, 1), (1.0, 1), (3.0, 3), (100.0, 8)] {
            let mut simulation = BatchSimulation::new(1, 8, BatchGain::UpToCost(enough));
            simulation.arrivals = requests_at("a", millis(0), 24);
            let left = simulation.simulate();
            assert!(left.iter().all(|l| l.batch_size == size), "{enough} {left:?}");
        }
    }

    #[test]
    fn small_batch_gain_leaves_no_worker_idle_with_requests() {
        let mut simulation = BatchSimulation::new(3, 4, BatchGain::UpToCost(2.0));
        for n in 0..200 {
            simulation.arrivals.extend(requests_at("a", millis(n * 7), 1));
        }
        let left = simulation.simulate();
        assert_eq!(left.len(), 200);
        assert!(left.iter().all(|l| l.wait_time <= millis(20)));
    }
}
