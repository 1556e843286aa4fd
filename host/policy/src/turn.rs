//! How long a call has run.
//!
//! What counts is CPU: a call that waits for its turn on a busy machine, or for the host's answer, is not running. The clock
//! of a thread is read at ticks only, so that a call of microseconds never pays for it. To count the ticks instead would be
//! cheaper still and wrong: a guest sees one tick however long the instruction took that it came in, and a single
//! `memory.copy` can take as long as ten.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a call is held to have run before its first tick.
const FIRST: Duration = Duration::from_millis(1);

/// What is left to a call.
pub(crate) struct Turn {
    left: Duration,
    clock: Arc<Clock>,
}

/// Nanoseconds that the wait for a turn leaves behind.
#[derive(Default)]
struct Clock {
    /// CPU time of the thread when the guest last got its turn there; 0: it has not come to a tick yet.
    since: AtomicU64,
    /// All the time it waited for its turn.
    idle: AtomicU64,
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            left: Duration::ZERO,
            clock: Arc::default(),
        }
    }

    /// A call begins that may run for so long.
    pub(crate) fn begin(&mut self, millis: u32) {
        // The first tick may come at once.
        self.left = Duration::from_millis(millis.into()) + FIRST;
        self.clock.since.store(0, Ordering::Relaxed);
        self.clock.idle.store(0, Ordering::Relaxed);
    }

    /// A tick: what lets others run until the guest has its turn again, or `None` if it has had all of its time.
    pub(crate) fn tick(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let ran = match self.clock.since.load(Ordering::Relaxed) {
            0 => FIRST,
            since => Duration::from_nanos(cpu().saturating_sub(since)),
        };
        self.left = self.left.checked_sub(ran)?;
        let clock = Arc::clone(&self.clock);
        Some(Box::pin(async move {
            let began = Instant::now();
            tokio::task::yield_now().await;
            clock.idle.fetch_add(nanos(began.elapsed()), Ordering::Relaxed);
            clock.since.store(cpu(), Ordering::Relaxed);
        }))
    }

    /// The guest goes on after it waited for the host, perhaps on another thread.
    pub(crate) fn resume(&self) {
        if self.clock.since.load(Ordering::Relaxed) != 0 {
            self.clock.since.store(cpu(), Ordering::Relaxed);
        }
    }

    /// How long the call has waited for its turn.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_nanos(self.clock.idle.load(Ordering::Relaxed))
    }
}

/// CPU time of this thread.
fn cpu() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let now = Duration::try_from(now).unwrap_or_default();
    nanos(now).max(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses CPU for so long.
    fn work(millis: u64) {
        let end = cpu() + millis * 1_000_000;
        while cpu() < end {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_long_instruction_counts_as_long_as_it_takes() {
        let mut turn = Turn::new();
        turn.begin(20);
        let mut ticks = 0;
        while let Some(wait) = turn.tick() {
            wait.await;
            work(5);
            ticks += 1;
        }
        assert!((3..=5).contains(&ticks), "{ticks}");
    }

    #[tokio::test]
    async fn waiting_for_a_turn_counts_as_nothing() {
        let mut turn = Turn::new();
        turn.begin(20);
        for _ in 0..5 {
            let wait = turn.tick().unwrap();
            // Whoever has the turn in between has it for half as long as the call may run.
            tokio::join!(wait, async { work(10) });
        }
        assert!(turn.idle() >= Duration::from_millis(50), "{:?}", turn.idle());
        work(21);
        assert!(turn.tick().is_none());
    }

    #[tokio::test]
    async fn waiting_for_the_host_counts_as_nothing() {
        let mut turn = Turn::new();
        turn.begin(20);
        turn.tick().unwrap().await;
        work(30);
        turn.resume();
        assert!(turn.tick().is_some());
    }
}
