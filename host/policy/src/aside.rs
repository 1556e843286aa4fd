//! Where a call goes on that does not return at once.
//!
//! A decision takes microseconds and is made on the thread that asks for it. A call that has run for a tick is another
//! matter: nothing that reads pages or answers requests should wait because some tenant's component computes for long. It
//! goes on aside, on threads that give way to all others of the process. How much they get is the kernel's to say, which
//! sees what each core is doing at every moment: all of the machine while nobody else wants it, and a tenth of a core that
//! somebody else wants too. A limit on how many such calls run at once could do neither: it would leave cores idle, and on
//! a machine of two give half of all to whoever never returns.
//!
//! What a call asks the host, it asks on the runtime that it came from, so timers and connections stay there.

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

use crate::turn::Clock;

/// How much these threads give way: of a core that a thread of nice 0 wants too, one of nice 10 gets 110 parts of 1,134
/// (`sched_prio_to_weight` of Linux).
const NICE: i32 = 10;

/// The threads. Dropping it ends them; whoever runs a call there has it borrowed.
pub(crate) struct Aside {
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

impl Aside {
    /// As many threads as there are cores.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism()?.get())
            .thread_name("weir-guest")
            .on_thread_start(give_way)
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs a call to its end: here until it is late by its clock, aside from then on. When the caller loses interest, the
    /// call ends at its next tick.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        clock: Arc<Clock>,
        call: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let mut call = Box::pin(call);
        let soon = poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(said) => Poll::Ready(Some(said)),
            Poll::Pending if clock.is_late() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(said) = soon.await {
            return said;
        }
        let Some(runtime) = &self.runtime else {
            return call.await;
        };
        let call = call.in_current_span().with_current_subscriber();
        let call = TokioContext::new(call, Handle::current());
        match AbortOnDropHandle::new(runtime.spawn(call)).await {
            Ok(said) => said,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // Only a runtime that is gone cancels a task that has its handle.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Calls borrow it, so there are none, and a destructor may be in no position to wait.
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of this thread; elsewhere than on Linux that is not to be had for a single one.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::warn!(%error, "long calls of components run at the priority of the host");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::turn::Turn;

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_call_that_returns_at_once_stays() {
        let aside = Aside::start().unwrap();
        let clock = Turn::new().clock();
        let here = name();
        let there = aside.run(clock, async {
            tokio::task::yield_now().await;
            name()
        });
        assert_eq!(there.await, here);
    }

    #[tokio::test]
    async fn a_late_one_goes_on_where_it_is_in_nobodys_way_and_asks_the_host_it_came_from() {
        let aside = Aside::start().unwrap();
        let mut turn = Turn::new();
        turn.begin(1000);
        let clock = turn.clock();
        let home = Handle::current().id();
        let call = async move {
            turn.tick().unwrap().await;
            (name(), Handle::current().id(), priority())
        };
        let (thread, runtime, priority) = aside.run(clock, call).await;
        assert_eq!(thread, "weir-guest");
        assert_eq!(runtime, home);
        if cfg!(target_os = "linux") {
            assert_eq!(priority, NICE);
        }
    }

    fn priority() -> i32 {
        rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap()
    }

    #[tokio::test]
    async fn a_call_nobody_waits_for_ends() {
        struct Told(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let aside = Aside::start().unwrap();
        let mut turn = Turn::new();
        turn.begin(u32::MAX);
        let clock = turn.clock();
        let (tell, told) = tokio::sync::oneshot::channel();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let call = async move {
            let _told = Told(Some(tell));
            turn.tick().unwrap().await;
            begin.send(()).unwrap();
            loop {
                turn.tick().unwrap().await;
            }
        };
        tokio::select! {
            () = aside.run(clock, call) => {}
            begun = begun => begun.unwrap(),
        }
        told.await.unwrap();
    }

    #[tokio::test]
    #[should_panic = "as loud as here"]
    async fn a_panic_comes_back() {
        let aside = Aside::start().unwrap();
        let mut turn = Turn::new();
        turn.begin(1000);
        let clock = turn.clock();
        let call = async move {
            turn.tick().unwrap().await;
            panic!("as loud as here")
        };
        aside.run(clock, call).await
    }
}
