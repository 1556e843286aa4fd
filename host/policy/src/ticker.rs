//! The clock that ends a guest which does not return.
//!
//! Wasmtime's epoch is a counter that compiled code compares at loop heads and function entries; one thread advances it
//! every millisecond. While no job is open the thread sleeps, so an idle host stays idle. A deadline is counted in ticks
//! that the guest itself ran through: what it spends waiting for a turn on a busy machine is not held against it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// One tick.
const TICK: Duration = Duration::from_millis(1);

struct Shared {
    jobs: AtomicUsize,
    stop: AtomicBool,
}

/// The thread that ticks. Dropping it ends the thread and waits for it.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            jobs: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("weir-epoch".into())
            .spawn(move || {
                while !seen.stop.load(Ordering::Acquire) {
                    if seen.jobs.load(Ordering::Acquire) == 0 {
                        std::thread::park();
                    } else {
                        std::thread::sleep(TICK);
                        engine.increment_epoch();
                    }
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Counts one more open job.
    pub(crate) fn job_opened(&self) {
        if self.shared.jobs.fetch_add(1, Ordering::AcqRel) == 0
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }

    /// Counts one less.
    pub(crate) fn job_closed(&self) {
        self.shared.jobs.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot have panicked, and there is nobody to tell if it had.
            let _ = thread.join();
        }
    }
}
