//! When a batch leaves, and how many requests it takes. Like the queue, it is told the time.
//!
//! No request waits while a worker could do something useful with it. Waiting for company pays only where a batch costs
//! less than its parts, which is a GPU's case, and there only while the device is busy anyway: then the next batch fills
//! by itself until a worker is free, and `linger` bounds the wait where one worker of several is free and would take a
//! batch of one. On a CPU a batch costs the sum of its parts, but for parts so small that a run's own cost shows. So an
//! idle worker takes its share at once, and no more than is worth a run: what is left is its again in a moment, unless an
//! older call or a fairer claim has come by then. A linger is never used up there.

use std::time::Duration;

use super::queue::{FairQueue, Request};

/// What a device gains from a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Gain {
    /// Less than its parts only up to this cost: requests are spread over the idle workers, who take one, or small ones
    /// together that cost this much.
    UpTo(f64),
    /// A batch costs less than its parts: batches are filled.
    Fill,
}

/// Decides what a free worker does.
pub(crate) struct Batcher<T> {
    queue: FairQueue<T>,
    workers: usize,
    busy: usize,
    largest: usize,
    gain: Gain,
}

/// What a free worker does now.
pub(crate) enum Next<T> {
    /// Runs these, then calls [`Batcher::done`].
    Run(Vec<Request<T>>),
    /// Asks again at this time, or when something has been pushed or done.
    Wait(Duration),
    /// Asks again when something has been pushed.
    Idle,
}

impl<T> Batcher<T> {
    /// For `workers` who take at most `largest` requests each.
    pub(crate) fn new(queue: FairQueue<T>, workers: usize, largest: usize, gain: Gain) -> Self {
        Self {
            queue,
            workers,
            busy: 0,
            largest: largest.max(1),
            gain,
        }
    }

    /// The requests that wait.
    pub(crate) const fn queue(&mut self) -> &mut FairQueue<T> {
        &mut self.queue
    }

    /// Requests waiting.
    pub(crate) const fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Asked by a free worker.
    pub(crate) fn next(&mut self, now: Duration) -> Next<T> {
        let waiting = self.queue.len();
        if waiting == 0 {
            return Next::Idle;
        }
        let (count, enough) = match self.gain {
            Gain::UpTo(cost) => (
                waiting.div_ceil(self.workers.saturating_sub(self.busy).max(1)),
                cost,
            ),
            Gain::Fill => {
                if let Some(due) = self.queue.due()
                    && waiting < self.largest
                    && self.busy > 0
                    && now < due
                {
                    return Next::Wait(due);
                }
                (waiting, f64::INFINITY)
            }
        };
        self.busy += 1;
        let (mut batch, mut cost) = (Vec::new(), 0.0);
        while batch.len() < count.min(self.largest)
            && (batch.is_empty() || cost < enough)
            && let Some(request) = self.queue.pop()
        {
            cost += request.cost;
            batch.push(request);
        }
        Next::Run(batch)
    }

    /// Told by a worker that has run its batch.
    pub(crate) const fn done(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use weir_core::{Lane, TenantId};

    use super::*;

    /// A simulation: requests arrive at given times, workers take `base + each × n` for a batch of `n`.
    struct Simulation {
        batcher: Batcher<Arrival>,
        base: Duration,
        each: Duration,
        arrivals: Vec<Arrival>,
    }

    #[derive(Clone, Debug)]
    struct Arrival {
        tenant: TenantId,
        lane: Lane,
        at: Duration,
        linger: Duration,
    }

    #[derive(Debug)]
    struct Left {
        tenant: TenantId,
        at: Duration,
        waited: Duration,
        batch: usize,
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn arrivals(tenant: &str, at: Duration, count: usize) -> Vec<Arrival> {
        let one = Arrival {
            tenant: tenant.parse().unwrap(),
            lane: Lane::Bulk,
            at,
            linger: ms(500),
        };
        vec![one; count]
    }

    impl Simulation {
        fn new(workers: usize, largest: usize, gain: Gain) -> Self {
            Self {
                batcher: Batcher::new(FairQueue::new(), workers, largest, gain),
                base: ms(10),
                each: ms(10),
                arrivals: Vec::new(),
            }
        }

        fn run(mut self) -> Vec<Left> {
            self.arrivals.sort_by_key(|a| a.at);
            let mut pending = self.arrivals.into_iter().peekable();
            let mut free: Vec<Option<Duration>> = vec![None; self.batcher.workers];
            let (mut left, mut now) = (Vec::new(), Duration::ZERO);
            loop {
                for end in &mut free {
                    if end.is_some_and(|e| e <= now) {
                        *end = None;
                        self.batcher.done();
                    }
                }
                while let Some(arrival) = pending.next_if(|a| a.at <= now) {
                    let (tenant, lane) = (arrival.tenant.clone(), arrival.lane);
                    let request = Request {
                        call: 0,
                        cost: 1.0,
                        weight: 1.0,
                        due: arrival.at + arrival.linger,
                        item: arrival,
                    };
                    self.batcher.queue().push(&tenant, lane, request);
                }
                let mut wake = pending.peek().map(|a| a.at);
                for end in &mut free {
                    if end.is_none() {
                        match self.batcher.next(now) {
                            Next::Run(batch) => {
                                let size = batch.len();
                                *end = Some(now + self.base + self.each * u32::try_from(size).unwrap());
                                left.extend(batch.into_iter().map(|r| Left {
                                    waited: now - r.item.at,
                                    tenant: r.item.tenant,
                                    at: now,
                                    batch: size,
                                }));
                            }
                            Next::Wait(due) => {
                                assert!(due > now);
                                wake = Some(wake.map_or(due, |w| w.min(due)));
                            }
                            Next::Idle => {}
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
    fn another_tenants_thousand_delay_three_by_one_batch() {
        let mut simulation = Simulation::new(1, 8, Gain::Fill);
        simulation.arrivals = arrivals("crowd", ms(0), 1000);
        simulation.arrivals.extend(arrivals("late", ms(95), 3));
        let left = simulation.run();
        assert_eq!(left.len(), 1003);
        // Batches of eight take 90 ms: the one that began at 90 ms ends at 180.
        for one in left.iter().filter(|l| l.tenant.as_str() == "late") {
            assert_eq!(one.at, ms(180), "{one:?}");
        }
    }

    #[test]
    fn a_lone_request_leaves_at_once_when_nothing_runs() {
        for gain in [Gain::Fill, Gain::UpTo(1.0)] {
            let mut simulation = Simulation::new(2, 8, gain);
            simulation.arrivals = arrivals("a", ms(3), 1);
            let left = simulation.run();
            assert_eq!((left[0].waited, left[0].batch), (ms(0), 1));
        }
    }

    #[test]
    fn while_the_device_is_busy_a_partial_batch_lingers_and_no_longer() {
        let mut simulation = Simulation::new(2, 8, Gain::Fill);
        simulation.base = ms(5000);
        simulation.arrivals = arrivals("a", ms(0), 8);
        simulation.arrivals.extend(arrivals("a", ms(10), 3));
        simulation.arrivals.extend(arrivals("a", ms(100), 2));
        let left = simulation.run();
        let partial: Vec<_> = left.iter().filter(|l| l.batch != 8).collect();
        assert_eq!(partial.len(), 5);
        assert!(
            partial.iter().all(|l| l.at == ms(510) && l.batch == 5),
            "{partial:?}"
        );
        assert_eq!(partial.iter().map(|l| l.waited).max(), Some(ms(500)));
    }

    #[test]
    fn a_full_batch_does_not_linger() {
        let mut simulation = Simulation::new(2, 8, Gain::Fill);
        simulation.base = ms(5000);
        simulation.arrivals = arrivals("a", ms(0), 8);
        simulation.arrivals.extend(arrivals("b", ms(10), 5));
        simulation.arrivals.extend(arrivals("c", ms(20), 3));
        let left = simulation.run();
        assert!(left.iter().all(|l| l.batch == 8), "{left:?}");
        assert!(left.iter().all(|l| l.at <= ms(20)), "{left:?}");
    }

    #[test]
    fn where_little_is_gained_requests_are_spread_over_the_workers() {
        let mut simulation = Simulation::new(4, 8, Gain::UpTo(100.0));
        simulation.arrivals = arrivals("a", ms(0), 8);
        let left = simulation.run();
        assert!(left.iter().all(|l| l.at == ms(0) && l.batch == 2), "{left:?}");
    }

    #[test]
    fn no_more_goes_into_a_batch_than_is_gained() {
        for (enough, size) in [(0.0, 1), (1.0, 1), (3.0, 3), (100.0, 8)] {
            let mut simulation = Simulation::new(1, 8, Gain::UpTo(enough));
            simulation.arrivals = arrivals("a", ms(0), 24);
            let left = simulation.run();
            assert!(left.iter().all(|l| l.batch == size), "{enough} {left:?}");
        }
    }

    #[test]
    fn no_worker_idles_while_something_waits_where_little_is_gained() {
        let mut simulation = Simulation::new(3, 4, Gain::UpTo(2.0));
        for n in 0..200 {
            simulation.arrivals.extend(arrivals("a", ms(n * 7), 1));
        }
        let left = simulation.run();
        assert_eq!(left.len(), 200);
        assert!(left.iter().all(|l| l.waited <= ms(20)));
    }
}
