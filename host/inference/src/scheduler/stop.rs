//! Ending runs of ONNX Runtime from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::session::{NoSelectedOutputs, RunOptions};
use parking_lot::Mutex;

/// Told once to stop, it ends every run made with its options: those under way between two operators, later ones at once.
#[derive(Default)]
pub(crate) struct Stop {
    told: AtomicBool,
    runs: Mutex<Vec<Arc<RunOptions<NoSelectedOutputs>>>>,
}

impl Stop {
    /// Options to run with.
    pub(crate) fn options(&self) -> ort::Result<Arc<RunOptions<NoSelectedOutputs>>> {
        let options = Arc::new(RunOptions::new()?);
        let mut runs = self.runs.lock();
        if self.is_told() {
            options.terminate()?;
        }
        runs.push(Arc::clone(&options));
        Ok(options)
    }

    /// Whether it was told to stop.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Stops.
    pub(crate) fn now(&self) {
        let runs = self.runs.lock();
        self.told.store(true, Ordering::Relaxed);
        for options in runs.iter() {
            if let Err(error) = options.terminate() {
                tracing::warn!(%error, "a run could not be ended early");
            }
        }
    }
}
