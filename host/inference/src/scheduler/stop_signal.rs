//! Stops runs of ONNX Runtime from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::session::{NoSelectedOutputs, RunOptions};
use parking_lot::Mutex;

/// Stops every run made with its options: active runs between two operators, later runs at once. It cannot be reset.
#[derive(Default)]
pub(crate) struct StopSignal {
    is_stopped: AtomicBool,
    run_options: Mutex<Vec<Arc<RunOptions<NoSelectedOutputs>>>>,
}

impl StopSignal {
    /// Creates options for a run that this signal can stop.
    pub(crate) fn new_stoppable_run_options(&self) -> ort::Result<Arc<RunOptions<NoSelectedOutputs>>> {
        let options = Arc::new(RunOptions::new()?);
        let mut runs = self.run_options.lock();
        if self.is_stopped() {
            options.terminate()?;
        }
        runs.push(Arc::clone(&options));
        Ok(options)
    }

    /// Returns whether the runs were stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Stops all active runs, and makes later runs stop at once.
    pub(crate) fn stop_all_runs(&self) {
        let runs = self.run_options.lock();
        self.is_stopped.store(true, Ordering::Relaxed);
        for options in runs.iter() {
            if let Err(error) = options.terminate() {
                tracing::warn!(%error, "cannot stop a run early");
            }
        }
    }
}
