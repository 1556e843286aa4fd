//! How a job is stopped: on request, or because something all its documents need has failed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_core::event::ErrorNote;

/// A job's stop cord; clones are one.
#[derive(Clone)]
pub(crate) struct Halt(Arc<Inner>);

struct Inner {
    cancelled: CancellationToken,
    /// When pages in flight are dropped, once cancelled.
    deadline: watch::Sender<Option<Instant>>,
    failed: watch::Sender<Option<ErrorNote>>,
    grace: Duration,
}

impl Halt {
    /// Not halted. `grace` is the time pages in flight have once it is.
    pub(crate) fn new(grace: Duration) -> Self {
        Self(Arc::new(Inner {
            cancelled: CancellationToken::new(),
            deadline: watch::Sender::new(None),
            failed: watch::Sender::new(None),
            grace,
        }))
    }

    /// Cancels. The first call sets the deadline.
    pub(crate) fn cancel(&self) {
        let end = Instant::now() + self.0.grace;
        self.0.deadline.send_if_modified(|deadline| {
            let first = deadline.is_none();
            deadline.get_or_insert(end);
            first
        });
        self.0.cancelled.cancel();
    }

    /// Fails every document of the job that has not ended. The first reason stands.
    pub(crate) fn fail(&self, error: ErrorNote) {
        self.0.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(error);
            first
        });
    }

    /// Whether the job or a handle to it still knows this cord.
    pub(crate) fn is_held_elsewhere(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether it was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }

    /// Whether it was cancelled or has failed.
    pub(crate) fn is_halted(&self) -> bool {
        self.is_cancelled() || self.0.failed.borrow().is_some()
    }

    /// Waits until it is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Waits until it has failed, and says why.
    pub(crate) async fn failed(&self) -> ErrorNote {
        let mut failed = self.0.failed.subscribe();
        loop {
            if let Some(error) = failed.borrow_and_update().clone() {
                return error;
            }
            if failed.changed().await.is_err() {
                // The sender lives in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// When pages in flight are dropped; now, if it was not cancelled.
    pub(crate) fn deadline(&self) -> Instant {
        self.0.deadline.borrow().unwrap_or_else(Instant::now)
    }

    /// Why it failed, if it did.
    pub(crate) fn failure(&self) -> Option<ErrorNote> {
        self.0.failed.borrow().clone()
    }
}
