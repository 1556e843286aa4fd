//! Measures and limits the CPU time of a policy call.
//!
//! Only CPU time counts: time that a call waits for a core, or for the host, does not. The CPU clock of the thread is read
//! only at epoch ticks, so a call of microseconds never pays for it. Counting ticks would be cheaper but wrong: a guest
//! notices one tick at most during an instruction, and a single `memory.copy` can take as long as ten ticks.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that is charged for the time before the first tick.
const FIRST_TICK_ALLOWANCE: Duration = Duration::from_millis(1);

/// The CPU time that a call has used and may use.
pub(crate) struct CpuBudget {
    used: Duration,
    limit: Duration,
    clock: Arc<CpuClock>,
}

/// The CPU clock of a running call, shared with the executor that polls it.
#[derive(Default)]
pub(crate) struct CpuClock {
    /// Nanoseconds of CPU time that the current thread had used when the guest last resumed. 0 before the first tick.
    started_nanos: AtomicU64,
}

impl CpuClock {
    pub(crate) fn has_reached_first_tick(&self) -> bool {
        self.started_nanos.load(Ordering::Relaxed) != 0
    }

    fn restart_at_current_cpu_time(&self) {
        self.started_nanos.store(thread_cpu_nanos(), Ordering::Relaxed);
    }
}

impl CpuBudget {
    pub(crate) fn new() -> Self {
        Self {
            used: Duration::ZERO,
            limit: Duration::ZERO,
            clock: Arc::default(),
        }
    }

    /// Resets the budget for a new call that may use `millis` of CPU time.
    pub(crate) fn reset_for_call(&mut self, millis: u32) {
        // The first tick may come right after the start but is charged as a full tick, so the limit allows for it.
        self.limit = Duration::from_millis(millis.into()) + FIRST_TICK_ALLOWANCE;
        self.used = Duration::ZERO;
        self.clock.started_nanos.store(0, Ordering::Relaxed);
    }

    pub(crate) fn shared_clock(&self) -> Arc<CpuClock> {
        Arc::clone(&self.clock)
    }

    /// Handles an epoch tick. Returns a future that yields to other tasks, or `None` if the call has used up its budget.
    pub(crate) fn check_budget_on_epoch_tick(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        if self.clock.has_reached_first_tick() {
            self.pause_counting();
        } else {
            self.used = FIRST_TICK_ALLOWANCE;
        }
        if self.used > self.limit {
            return None;
        }
        self.clock.restart_at_current_cpu_time();
        let clock = Arc::clone(&self.clock);
        Some(Box::pin(async move {
            tokio::task::yield_now().await;
            // The task may have moved to another thread.
            clock.restart_at_current_cpu_time();
        }))
    }

    /// Stops counting: the guest has returned or waits for the host.
    pub(crate) fn pause_counting(&mut self) {
        match self.clock.started_nanos.load(Ordering::Relaxed) {
            0 => {}
            since => {
                self.used += Duration::from_nanos(thread_cpu_nanos().saturating_sub(since));
                self.clock.restart_at_current_cpu_time();
            }
        }
    }

    /// Resumes counting after a wait for the host, possibly on another thread.
    pub(crate) fn resume_counting(&self) {
        if self.clock.has_reached_first_tick() {
            self.clock.restart_at_current_cpu_time();
        }
    }

    /// Returns the CPU time used until counting last stopped; `None` if there has been no tick.
    pub(crate) fn used_cpu_time(&self) -> Option<Duration> {
        self.clock.has_reached_first_tick().then_some(self.used)
    }
}

/// Returns the CPU time of this thread in nanoseconds, at least 1.
fn thread_cpu_nanos() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let now = Duration::try_from(now).unwrap_or_default();
    to_nanos(now).max(1)
}

pub(crate) fn to_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin_cpu(millis: u64) {
        let end = thread_cpu_nanos() + millis * 1_000_000;
        while thread_cpu_nanos() < end {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_long_instruction_is_counted_in_full() {
        let mut budget = CpuBudget::new();
        budget.reset_for_call(20);
        let mut ticks = 0;
        while let Some(yielded) = budget.check_budget_on_epoch_tick() {
            yielded.await;
            spin_cpu(5);
            ticks += 1;
        }
        assert!((3..=5).contains(&ticks), "{ticks}");
    }

    #[tokio::test]
    async fn time_used_by_other_tasks_is_not_counted() {
        let mut budget = CpuBudget::new();
        budget.reset_for_call(20);
        for _ in 0..5 {
            let yielded = budget.check_budget_on_epoch_tick().unwrap();
            // The other task uses half of the call's budget each time.
            tokio::join!(yielded, async { spin_cpu(10) });
        }
        budget.pause_counting();
        assert!(
            budget.used_cpu_time().unwrap() < Duration::from_millis(10),
            "{:?}",
            budget.used_cpu_time()
        );
        spin_cpu(21);
        assert!(budget.check_budget_on_epoch_tick().is_none());
    }

    #[tokio::test]
    async fn time_waiting_for_the_host_is_not_counted() {
        let mut budget = CpuBudget::new();
        budget.reset_for_call(20);
        budget.check_budget_on_epoch_tick().unwrap().await;
        budget.pause_counting();
        spin_cpu(30);
        budget.resume_counting();
        assert!(budget.check_budget_on_epoch_tick().is_some());
    }

    #[tokio::test]
    async fn cpu_time_between_host_calls_is_counted() {
        let mut budget = CpuBudget::new();
        budget.reset_for_call(20);
        budget.check_budget_on_epoch_tick().unwrap().await;
        for _ in 0..5 {
            spin_cpu(5);
            budget.pause_counting();
            budget.resume_counting();
        }
        assert!(budget.check_budget_on_epoch_tick().is_none());
    }
}
