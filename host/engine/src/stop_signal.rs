//! The signal that stops a job: it is cancelled, suspended to be resumed later, or failed because of an error that affects all
//! its documents.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_core::event::ErrorInfo;

/// The stop signal of a job. Clones share their state.
#[derive(Clone)]
pub(crate) struct StopSignal(Arc<StopSignalInner>);

struct StopSignalInner {
    /// Set when the job is cancelled or suspended: no further page is started.
    cancelled_or_suspended: CancellationToken,
    cancelled: CancellationToken,
    /// The time at which pages in flight are dropped; `None` until the job is stopping.
    deadline: watch::Sender<Option<Instant>>,
    failed: watch::Sender<Option<ErrorInfo>>,
    grace: Duration,
}

impl StopSignal {
    /// Creates a signal that is not set. `grace` is the time that pages in flight get after the job is cancelled.
    pub(crate) fn new(grace: Duration) -> Self {
        Self(Arc::new(StopSignalInner {
            cancelled_or_suspended: CancellationToken::new(),
            cancelled: CancellationToken::new(),
            deadline: watch::Sender::new(None),
            failed: watch::Sender::new(None),
            grace,
        }))
    }

    /// Cancels the job.
    pub(crate) fn signal_cancel(&self) {
        self.set_deadline_if_unset(Instant::now() + self.0.grace);
        self.0.cancelled.cancel();
        self.0.cancelled_or_suspended.cancel();
    }

    /// Stops the job so that it can be resumed later. Pages in flight get `grace` to finish.
    pub(crate) fn signal_suspend(&self, grace: Duration) {
        self.set_deadline_if_unset(Instant::now() + grace);
        self.0.cancelled_or_suspended.cancel();
    }

    /// Sets the deadline of pages in flight, unless it is set already.
    fn set_deadline_if_unset(&self, end: Instant) {
        self.0.deadline.send_if_modified(|deadline| {
            let first = deadline.is_none();
            deadline.get_or_insert(end);
            first
        });
    }

    /// Fails every document of the job that has not ended. Only the first error counts.
    pub(crate) fn signal_failure(&self, error: ErrorInfo) {
        self.0.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(error);
            first
        });
    }

    /// Whether the job was cancelled or has failed.
    pub(crate) fn is_cancelled_or_failed(&self) -> bool {
        self.0.cancelled.is_cancelled() || self.0.failed.borrow().is_some()
    }

    /// Whether no further page is to be started: the job was cancelled, suspended or has failed.
    pub(crate) fn is_cancelled_suspended_or_failed(&self) -> bool {
        self.0.cancelled_or_suspended.is_cancelled() || self.is_cancelled_or_failed()
    }

    /// Waits until the job is cancelled.
    pub(crate) async fn await_cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Waits until the job is cancelled or suspended.
    pub(crate) async fn await_cancelled_or_suspended(&self) {
        self.0.cancelled_or_suspended.cancelled().await;
    }

    /// Waits until the job has failed, and returns the error.
    pub(crate) async fn await_failed(&self) -> ErrorInfo {
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

    /// Waits until the job was cancelled or has failed.
    pub(crate) async fn await_cancelled_or_failed(&self) {
        tokio::select! {
            () = self.await_cancelled() => {}
            _ = self.await_failed() => {}
        }
    }

    /// Returns the time at which pages in flight are dropped; now, if the job is not stopping.
    pub(crate) fn in_flight_deadline(&self) -> Instant {
        self.0.deadline.borrow().unwrap_or_else(Instant::now)
    }

    /// Returns the error if the job has failed.
    pub(crate) fn failure_error(&self) -> Option<ErrorInfo> {
        self.0.failed.borrow().clone()
    }
}
