//! Moves long policy calls to threads of low priority.
//!
//! A typical call takes microseconds and runs on the thread that makes it. A call that reaches an epoch tick is long, and pages
//! and requests must not wait for it. So it moves to threads with a lower priority than all other threads of the process.
//! The kernel decides how much CPU time these threads get: all idle cores, and about a tenth of a core that another thread
//! wants too. A limit on the number of long calls could not do this. It would leave cores idle, and on a machine with two
//! cores one endless call would take half of the CPU time.
//!
//! Host calls of a moved call still run on its original runtime, so timers and connections stay there.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::context::TokioContext;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use crate::instance::cpu_budget::CpuClock;

/// Nice value of the threads. Next to a thread of nice 0, a thread of nice 10 gets 110 parts of 1,134 of a core
/// (`sched_prio_to_weight` of Linux).
const OFFLOAD_NICE: i32 = 10;

/// Runs long policy calls on low-priority threads. Dropping it stops the threads. Calls borrow the executor, so no call can
/// be running when it is dropped.
pub(crate) struct OffloadExecutor {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl OffloadExecutor {
    /// Starts one thread for each core.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism()?.get())
            .thread_name("weir-guest")
            .on_thread_start(lower_thread_priority)
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs a call to its end: on the current task until its first tick, on the low-priority threads after that. If the caller
    /// drops the future, the call ends at its next tick.
    pub(crate) async fn run_call_and_offload_if_long<T: Send + 'static>(
        &self,
        clock: Arc<CpuClock>,
        call: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let mut call = Box::pin(call);
        let until_first_tick = poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if clock.has_reached_first_tick() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(output) = until_first_tick.await {
            return output;
        }
        let Some(runtime) = &self.runtime else {
            return call.await;
        };
        let call = call.in_current_span().with_current_subscriber();
        let call = TokioContext::new(call, Handle::current());
        match AbortOnDropHandle::new(runtime.spawn(call)).await {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // A task with a live handle is canceled only when its runtime shuts down.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Drop for OffloadExecutor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // No call is running, since calls borrow the executor. A blocking shutdown would panic in an async context.
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of this thread. Only Linux can do this for a single thread.
fn lower_thread_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), OFFLOAD_NICE) {
        tracing::warn!(%error, "cannot lower the priority of the threads for long component calls");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::instance::cpu_budget::CpuBudget;

    fn current_thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_short_call_stays_on_the_calling_thread() {
        let executor = OffloadExecutor::start().unwrap();
        let clock = CpuBudget::new().shared_clock();
        let caller = current_thread_name();
        let call = executor.run_call_and_offload_if_long(clock, async {
            tokio::task::yield_now().await;
            current_thread_name()
        });
        assert_eq!(call.await, caller);
    }

    #[tokio::test]
    async fn a_long_call_moves_to_a_low_priority_thread() {
        let executor = OffloadExecutor::start().unwrap();
        let mut budget = CpuBudget::new();
        budget.reset_for_call(1000);
        let clock = budget.shared_clock();
        let caller_runtime = Handle::current().id();
        let call = async move {
            budget.check_budget_on_epoch_tick().unwrap().await;
            (
                current_thread_name(),
                Handle::current().id(),
                current_thread_priority(),
            )
        };
        let (thread, runtime, priority) = executor.run_call_and_offload_if_long(clock, call).await;
        assert_eq!(thread, "weir-guest");
        assert_eq!(runtime, caller_runtime);
        if cfg!(target_os = "linux") {
            assert_eq!(priority, OFFLOAD_NICE);
        }
    }

    fn current_thread_priority() -> i32 {
        rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap()
    }

    #[tokio::test]
    async fn a_call_ends_when_its_caller_is_dropped() {
        struct NotifyOnDrop(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for NotifyOnDrop {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let executor = OffloadExecutor::start().unwrap();
        let mut budget = CpuBudget::new();
        budget.reset_for_call(u32::MAX);
        let clock = budget.shared_clock();
        let (drop_sender, dropped) = tokio::sync::oneshot::channel();
        let (start_sender, started) = tokio::sync::oneshot::channel();
        let call = async move {
            let _notify = NotifyOnDrop(Some(drop_sender));
            budget.check_budget_on_epoch_tick().unwrap().await;
            start_sender.send(()).unwrap();
            loop {
                budget.check_budget_on_epoch_tick().unwrap().await;
            }
        };
        tokio::select! {
            () = executor.run_call_and_offload_if_long(clock, call) => {}
            started = started => started.unwrap(),
        }
        dropped.await.unwrap();
    }

    #[tokio::test]
    #[should_panic = "panic in the offloaded call"]
    async fn a_panic_reaches_the_caller() {
        let executor = OffloadExecutor::start().unwrap();
        let mut budget = CpuBudget::new();
        budget.reset_for_call(1000);
        let clock = budget.shared_clock();
        let call = async move {
            budget.check_budget_on_epoch_tick().unwrap().await;
            panic!("panic in the offloaded call")
        };
        executor.run_call_and_offload_if_long(clock, call).await
    }
}
