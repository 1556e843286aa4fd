//! A session that is being recorded.

use std::sync::atomic::{AtomicBool, Ordering};

use weir_core::recording::RecordingSession;

/// State that the recorder of a session shares with the writer thread.
pub(super) struct RecordingInProgress {
    pub(super) session: RecordingSession,
    /// Set when the recorder must not accept more calls.
    pub(super) stopped: AtomicBool,
    /// Set when the writer drops everything that the recorder still submits: the recording has ended, has failed or was removed.
    closed: AtomicBool,
}

impl RecordingInProgress {
    pub(super) const fn new(session: RecordingSession) -> Self {
        Self {
            session,
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Stops the recording: nothing more is stored.
    pub(super) fn close(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
