//! Group commit of ledger entries for the whole engine.
//!
//! A ledger commit costs an fsync, and so does each flush of blobs and vectors. So entries are collected for a moment (250 ms or
//! 100 entries by default) and committed together. The order makes "done" reliable: first images and lines are flushed, then
//! vectors, and only then does the ledger record that the page is done. A host that dies in between repeats work that was not
//! recorded. It never takes missing work for done.
//!
//! A group whose commit fails is kept and retried, so a disk that is full for a minute loses no finished work. Meanwhile all
//! jobs are stopped, since their further work could not be recorded. Each entry has its own key, so writing a group twice
//! has the effect of writing it once. While a store on another machine does not respond, the jobs are not stopped: the writer waits, and
//! takes no further entries, so the jobs wait too.
//!
//! The entries of a job that has a claim are committed only while the claim holds. If it is lost, the entries of this job are dropped, the
//! job is stopped, and the rest of the group is committed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use weir_core::ledger::LedgerEntry;
use weir_core::ports::{BlobStore, Ledger, VectorStore};
use weir_core::{JobId, StorageError};

use crate::engine_metrics::CommitMetrics;
use crate::running_claim::RunningClaim;
use crate::store_retry::StoreBackoff;

/// Attempts of a commit before the jobs are stopped.
const MAX_ATTEMPTS: u32 = 3;
/// Backoff before the next attempt.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);
/// Time until a group that could not be written is tried again.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);
/// The most entries that are kept while commits fail. The jobs have stopped by then, so only work in flight adds entries.
const MAX_PENDING_ENTRIES: usize = 20_000;

/// The handle through which jobs submit ledger entries.
#[derive(Clone)]
pub(crate) struct GroupCommit {
    requests: mpsc::Sender<CommitRequest>,
    /// The claim of the job that submits through this handle.
    claim: Option<Arc<RunningClaim>>,
    /// Set when the engine stops: then the writer waits for no store.
    closing: CancellationToken,
    failure: watch::Receiver<Option<StorageError>>,
}

enum CommitRequest {
    Entries(Submission),
    Sync(oneshot::Sender<Result<(), StorageError>>),
    Close(oneshot::Sender<Result<(), StorageError>>),
}

/// Entries that belong together, and the claim that they need.
struct Submission {
    claim: Option<Arc<RunningClaim>>,
    entries: Vec<LedgerEntry>,
}

/// Reserved capacity for one submission. Submitting is immediate and keeps the order of the reservations.
pub(crate) struct SubmissionReservation<'a> {
    permit: mpsc::Permit<'a, CommitRequest>,
    claim: Option<Arc<RunningClaim>>,
}

impl SubmissionReservation<'_> {
    /// Submits entries that belong together: they are committed in one group.
    pub(crate) fn submit_entries(self, entries: Vec<LedgerEntry>) {
        let claim = self.claim;
        self.permit
            .send(CommitRequest::Entries(Submission { claim, entries }));
    }
}

impl GroupCommit {
    /// Creates the handle, and the future that writes the entries. An entry waits for others for at most `max_delay`. As soon as
    /// `max_entries` entries are pending, they are committed.
    pub(crate) fn new(
        blobs: Arc<dyn BlobStore>,
        vectors: Arc<dyn VectorStore>,
        ledger: Arc<dyn Ledger>,
        max_delay: Duration,
        max_entries: usize,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let max_entries = max_entries.max(1);
        let (request_sender, inbox) = mpsc::channel(max_entries);
        let (failure_sender, failure_receiver) = watch::channel(None);
        let closing = CancellationToken::new();
        let writer = CommitWriter {
            inbox,
            closing: closing.clone(),
            blobs,
            vectors,
            ledger,
            max_delay,
            max_entries,
            group: Vec::new(),
            failure: failure_sender,
            metrics: CommitMetrics::new(),
        };
        (
            Self {
                requests: request_sender,
                claim: None,
                closing,
                failure: failure_receiver,
            },
            writer.run_commit_loop(),
        )
    }

    /// Returns a handle for the entries of a job that runs under this claim.
    pub(crate) fn with_claim(&self, claim: Option<Arc<RunningClaim>>) -> Self {
        Self {
            claim,
            ..self.clone()
        }
    }

    /// Waits for the capacity to submit entries; `None` once the group commit is closed. This wait is the backpressure of a slow
    /// ledger.
    pub(crate) async fn reserve_submission(&self) -> Option<SubmissionReservation<'_>> {
        let permit = self.requests.reserve().await.ok()?;
        let claim = self.claim.clone();
        Some(SubmissionReservation { permit, claim })
    }

    /// Commits all entries submitted before, and returns when they are durable.
    pub(crate) async fn commit_pending(&self) -> Result<(), StorageError> {
        self.send_request_and_await_reply(CommitRequest::Sync).await
    }

    /// Commits the pending entries and ends the writer. Fails if a store is not available now.
    pub(crate) async fn commit_and_close(&self) -> Result<(), StorageError> {
        self.closing.cancel();
        self.send_request_and_await_reply(CommitRequest::Close).await
    }

    async fn send_request_and_await_reply(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<(), StorageError>>) -> CommitRequest,
    ) -> Result<(), StorageError> {
        let (reply, response) = oneshot::channel();
        self.requests
            .send(message(reply))
            .await
            .map_err(|_| writer_stopped_error())?;
        response.await.unwrap_or_else(|_| Err(writer_stopped_error()))
    }

    /// Waits until commits fail, and returns the error.
    pub(crate) async fn await_failure(&self) -> StorageError {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(writer_stopped_error),
            Err(_) => writer_stopped_error(),
        }
    }
}

fn writer_stopped_error() -> StorageError {
    StorageError::Failed {
        what: "committing ledger entries".into(),
        reason: "the writer task has ended".into(),
    }
}

struct CommitWriter {
    inbox: mpsc::Receiver<CommitRequest>,
    closing: CancellationToken,
    blobs: Arc<dyn BlobStore>,
    vectors: Arc<dyn VectorStore>,
    ledger: Arc<dyn Ledger>,
    max_delay: Duration,
    max_entries: usize,
    group: Vec<Submission>,
    failure: watch::Sender<Option<StorageError>>,
    metrics: CommitMetrics,
}

impl CommitWriter {
    async fn run_commit_loop(mut self) {
        let mut due: Option<Instant> = None;
        loop {
            let message = tokio::select! {
                message = self.inbox.recv() => message,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = self.commit_with_retries().await.err().map(|_| Instant::now() + RECOVERY_INTERVAL);
                    continue;
                }
            };
            match message {
                Some(CommitRequest::Entries(submission)) => {
                    self.add_submission(submission);
                    if self.pending_entries() >= self.max_entries && self.is_healthy() {
                        due = self
                            .commit_with_retries()
                            .await
                            .err()
                            .map(|_| Instant::now() + RECOVERY_INTERVAL);
                    } else {
                        due.get_or_insert_with(|| Instant::now() + self.max_delay);
                    }
                }
                Some(CommitRequest::Sync(reply)) => {
                    let written = self.commit_with_retries().await;
                    due = written.as_ref().err().map(|_| Instant::now() + RECOVERY_INTERVAL);
                    // The caller may have been dropped.
                    let _ = reply.send(written);
                }
                Some(CommitRequest::Close(reply)) => {
                    let _ = reply.send(self.commit_with_retries().await);
                    return;
                }
                None => {
                    let _ = self.commit_with_retries().await;
                    return;
                }
            }
        }
    }

    fn is_healthy(&self) -> bool {
        self.failure.borrow().is_none()
    }

    fn add_submission(&mut self, submission: Submission) {
        if submission.claim.as_ref().is_some_and(|claim| claim.is_lost()) {
            return;
        }
        if self.pending_entries() + submission.entries.len() > MAX_PENDING_ENTRIES {
            tracing::error!(
                lost = submission.entries.len(),
                "ledger entries are dropped: too many are pending while commits fail"
            );
        } else {
            self.group.push(submission);
        }
    }

    fn pending_entries(&self) -> usize {
        self.group.iter().map(|submission| submission.entries.len()).sum()
    }

    fn pending_claims(&self) -> impl Iterator<Item = &Arc<RunningClaim>> {
        self.group
            .iter()
            .filter_map(|submission| submission.claim.as_ref())
    }

    /// Stops a job whose claim is lost, and drops its entries.
    fn drop_entries_of_lost_claim(&mut self, job: JobId) {
        self.pending_claims()
            .filter(|claim| claim.claim().job == job)
            .for_each(|claim| claim.mark_lost());
        let before = self.group.len();
        self.group
            .retain(|submission| !submission.claim.as_ref().is_some_and(|claim| claim.is_lost()));
        self.metrics.refused.increment((before - self.group.len()) as u64);
    }

    async fn commit_with_retries(&mut self) -> Result<(), StorageError> {
        let mut attempt = 1;
        let mut backoff = StoreBackoff::default();
        let error = loop {
            if self.group.is_empty() {
                self.failure.send_if_modified(|failure| failure.take().is_some());
                return Ok(());
            }
            let began = Instant::now();
            match self.flush_and_commit().await {
                Ok(()) => {
                    let took = began.elapsed();
                    self.metrics.seconds.record(took);
                    self.metrics.commits.increment(1);
                    tracing::debug!(
                        entries = self.pending_entries(),
                        millis = took.as_millis() as u64,
                        "committed"
                    );
                    self.group.clear();
                    self.failure.send_if_modified(|failure| failure.take().is_some());
                    return Ok(());
                }
                Err(StorageError::ClaimLost { job }) => self.drop_entries_of_lost_claim(job),
                Err(error @ StorageError::Failed { .. }) if attempt < MAX_ATTEMPTS => {
                    tracing::warn!(%error, attempt, "a ledger commit failed and is retried");
                    attempt += 1;
                    sleep(RETRY_BACKOFF).await;
                }
                Err(error @ StorageError::Unavailable { .. }) if !self.closing.is_cancelled() => {
                    let delay = sleep(backoff.next_delay(&error));
                    self.closing.run_until_cancelled(delay).await;
                }
                Err(error) => break error,
            }
        };
        tracing::error!(%error, entries = self.pending_entries(), "ledger commits fail, all jobs are stopped");
        self.failure.send_replace(Some(error.clone()));
        Err(error)
    }

    async fn flush_and_commit(&self) -> Result<(), StorageError> {
        let entries = || self.group.iter().flat_map(|submission| &submission.entries);
        if entries().any(|entry| matches!(entry, LedgerEntry::Page(_))) {
            self.blobs.flush_blobs().await?;
            self.vectors.flush_points().await?;
        }
        // A HashSet, because a job has many submissions in a group.
        let claims: HashSet<_> = self.pending_claims().map(|claim| claim.claim()).collect();
        let claims = claims.into_iter().cloned().map(LedgerEntry::RequireClaim);
        let entries = claims.chain(entries().cloned()).collect();
        self.ledger.commit_entries(entries).await
    }
}
