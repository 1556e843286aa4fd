//! How long a call has run.
//!
//! What counts is CPU: a call that waits for its turn on a busy machine, or for the host's answer, is not running. The clock
//! of a thread is read at ticks only, so that a call of microseconds never pays for it. To count the ticks instead would be
//! cheaper still and wrong: a guest sees one tick however long the instruction took that it came in, and a single
//! `memory.copy` can take as long as ten.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a call is held to have run before its first tick.
const FIRST: Duration = Duration::from_millis(1);

/// What a call has run, and may run.
pub(crate) struct Turn {
    ran: Duration,
    may: Duration,
    clock: Arc<Clock>,
}

/// What a call leaves behind when it lets others run.
#[derive(Default)]
pub(crate) struct Clock {
    /// CPU time, in nanoseconds, of the thread on which the guest last began to run; 0: it has not come to a tick yet.
    since: AtomicU64,
}

impl Clock {
    /// Whether the call has come to a tick.
    pub(crate) fn is_late(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    fn start(&self) {
        self.since.store(cpu(), Ordering::Relaxed);
    }
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            ran: Duration::ZERO,
            may: Duration::ZERO,
            clock: Arc::default(),
        }
    }

    /// A call begins that may run for so long.
    pub(crate) fn begin(&mut self, millis: u32) {
        // The first tick may come at once.
        self.may = Duration::from_millis(millis.into()) + FIRST;
        self.ran = Duration::ZERO;
        self.clock.since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// A tick: what lets others run until the guest has its turn again, or `None` if it has had all of its time.
    pub(crate) fn tick(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        if self.clock.is_late() {
            self.pause();
        } else {
            self.ran = FIRST;
        }
        if self.ran > self.may {
            return None;
        }
        self.clock.start();
        let clock = Arc::clone(&self.clock);
        Some(Box::pin(async move {
            tokio::task::yield_now().await;
            // Perhaps on another thread.
            clock.start();
        }))
    }

    /// The guest does not run from here on: it has returned, or asks the host.
    pub(crate) fn pause(&mut self) {
        match self.clock.since.load(Ordering::Relaxed) {
            0 => {}
            since => {
                self.ran += Duration::from_nanos(cpu().saturating_sub(since));
                self.clock.start();
            }
        }
    }

    /// The guest goes on after it waited for the host, perhaps on another thread.
    pub(crate) fn resume(&self) {
        if self.clock.is_late() {
            self.clock.start();
        }
    }

    /// What the call ran until it last paused, if it came to a tick.
    pub(crate) fn ran(&self) -> Option<Duration> {
        self.clock.is_late().then_some(self.ran)
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
        turn.pause();
        assert!(
            turn.ran().unwrap() < Duration::from_millis(10),
            "{:?}",
            turn.ran()
        );
        work(21);
        assert!(turn.tick().is_none());
    }

    #[tokio::test]
    async fn waiting_for_the_host_counts_as_nothing() {
        let mut turn = Turn::new();
        turn.begin(20);
        turn.tick().unwrap().await;
        turn.pause();
        work(30);
        turn.resume();
        assert!(turn.tick().is_some());
    }

    #[tokio::test]
    async fn what_ran_between_questions_counts() {
        let mut turn = Turn::new();
        turn.begin(20);
        turn.tick().unwrap().await;
        for _ in 0..5 {
            work(5);
            turn.pause();
            turn.resume();
        }
        assert!(turn.tick().is_none());
    }
}
