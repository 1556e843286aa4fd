//! How a job is stopped: on request, for the host to go on with it later, or because something all its documents need has
//! failed.

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
    /// No further page is begun, for whichever of the two reasons.
    stopping: CancellationToken,
    cancelled: CancellationToken,
    /// When pages in flight are dropped, once it is stopping.
    deadline: watch::Sender<Option<Instant>>,
    failed: watch::Sender<Option<ErrorNote>>,
    grace: Duration,
}

impl Halt {
    /// Not halted. `grace` is the time pages in flight have once it is cancelled.
    pub(crate) fn new(grace: Duration) -> Self {
        Self(Arc::new(Inner {
            stopping: CancellationToken::new(),
            cancelled: CancellationToken::new(),
            deadline: watch::Sender::new(None),
            failed: watch::Sender::new(None),
            grace,
        }))
    }

    /// Cancels.
    pub(crate) fn cancel(&self) {
        self.stop_by(Instant::now() + self.0.grace);
        self.0.cancelled.cancel();
        self.0.stopping.cancel();
    }

    /// Stops in a way that can be gone on from; pages in flight have `grace`.
    pub(crate) fn suspend(&self, grace: Duration) {
        self.stop_by(Instant::now() + grace);
        self.0.stopping.cancel();
    }

    /// The first deadline stands.
    fn stop_by(&self, end: Instant) {
        self.0.deadline.send_if_modified(|deadline| {
            let first = deadline.is_none();
            deadline.get_or_insert(end);
            first
        });
    }

    /// Fails every document of the job that has not ended. The first reason stands.
    pub(crate) fn fail(&self, error: ErrorNote) {
        self.0.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(error);
            first
        });
    }

    /// Whether nothing more will come of it: it was cancelled or has failed.
    pub(crate) fn is_over(&self) -> bool {
        self.0.cancelled.is_cancelled() || self.0.failed.borrow().is_some()
    }

    /// Whether no further page is to be begun.
    pub(crate) fn is_halted(&self) -> bool {
        self.0.stopping.is_cancelled() || self.is_over()
    }

    /// Waits until it is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Waits until it is cancelled or suspended.
    pub(crate) async fn stopping(&self) {
        self.0.stopping.cancelled().await;
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

    /// Waits until nothing more will come of it: it was cancelled or has failed.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.cancelled() => {}
            _ = self.failed() => {}
        }
    }

    /// When pages in flight are dropped; now, if it is not stopping.
    pub(crate) fn deadline(&self) -> Instant {
        self.0.deadline.borrow().unwrap_or_else(Instant::now)
    }

    /// Why it failed, if it did.
    pub(crate) fn failure(&self) -> Option<ErrorNote> {
        self.0.failed.borrow().clone()
    }
}
