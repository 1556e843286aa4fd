//! Advances wasmtime's epoch, which interrupts long-running guests.
//!
//! The epoch is a counter. Compiled code compares it at loop heads and function entries, and one thread increments it every
//! millisecond. The thread sleeps while no job is open, so an idle host uses no CPU time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

const TICK_INTERVAL: Duration = Duration::from_millis(1);

struct TickerControl {
    open_jobs: AtomicUsize,
    stop_requested: AtomicBool,
}

/// The thread that increments the epoch. Dropping it stops the thread and waits for it.
pub(crate) struct EpochTicker {
    control: Arc<TickerControl>,
    thread: Option<JoinHandle<()>>,
}

impl EpochTicker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(TickerControl {
            open_jobs: AtomicUsize::new(0),
            stop_requested: AtomicBool::new(false),
        });
        let thread_control = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("weir-epoch".into())
            .spawn(move || {
                while !thread_control.stop_requested.load(Ordering::Acquire) {
                    if thread_control.open_jobs.load(Ordering::Acquire) == 0 {
                        std::thread::park();
                    } else {
                        std::thread::sleep(TICK_INTERVAL);
                        engine.increment_epoch();
                    }
                }
            })?;
        Ok(Self {
            control: shared,
            thread: Some(thread),
        })
    }

    pub(crate) fn add_open_job(&self) {
        if self.control.open_jobs.fetch_add(1, Ordering::AcqRel) == 0
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }

    pub(crate) fn remove_open_job(&self) {
        self.control.open_jobs.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        self.control.stop_requested.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread does not panic, and an error could not be reported here.
            let _ = thread.join();
        }
    }
}
