//! Group commit for the whole host.
//!
//! A ledger commit costs an fsync, and so does each flush of blobs and vectors, so entries are gathered for a moment
//! (250 ms or 100 entries by default) and written as one. The order is what makes "done" mean something: images and lines
//! are flushed, vectors are flushed, and only then does the ledger say that the page is done. A host that dies in
//! between has done work it does not know of, which costs that work again; it never believes in work that is not there.
//!
//! When a commit fails the group is kept and tried again, so what was finished is not lost to a disk that was full for a
//! minute; meanwhile every job is told, since going on would be work that cannot be recorded. Entries are written under
//! keys of their own, so a group that is written twice is written once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use weir_core::StorageError;
use weir_core::ledger::Entry;
use weir_core::ports::{BlobStore, Ledger, VectorStore};

use crate::measures::CommitMeasures;

/// Times a commit is tried before the jobs are told.
const ATTEMPTS: u32 = 3;
/// Pause before another attempt.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause before a group that could not be written is tried again.
const RECOVERY: Duration = Duration::from_secs(1);
/// Entries kept while nothing can be written. The jobs have been told to stop by then, so only what was in flight comes.
const KEPT: usize = 20_000;

/// Where entries are handed in.
#[derive(Clone)]
pub(crate) struct Journal {
    desk: mpsc::Sender<Message>,
    health: watch::Receiver<Option<StorageError>>,
}

enum Message {
    Entries(Vec<Entry>),
    Sync(oneshot::Sender<Result<(), StorageError>>),
    Close(oneshot::Sender<Result<(), StorageError>>),
}

/// A reserved place in the journal: handing in is immediate and keeps the order of the callers.
pub(crate) struct Slot<'a>(mpsc::Permit<'a, Message>);

impl Slot<'_> {
    /// Hands in entries that belong together: they are committed in one group.
    pub(crate) fn write(self, entries: Vec<Entry>) {
        self.0.send(Message::Entries(entries));
    }
}

impl Journal {
    /// A journal and the task that writes it. Entries wait for at most `every`; `most` of them are written at once.
    pub(crate) fn open(
        blobs: Arc<dyn BlobStore>,
        vectors: Arc<dyn VectorStore>,
        ledger: Arc<dyn Ledger>,
        every: Duration,
        most: usize,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let most = most.max(1);
        let (desk, inbox) = mpsc::channel(most);
        let (told, health) = watch::channel(None);
        let writer = Writer {
            inbox,
            blobs,
            vectors,
            ledger,
            every,
            most,
            group: Vec::new(),
            health: told,
            measures: CommitMeasures::new(),
        };
        (Self { desk, health }, writer.run())
    }

    /// Room for entries; `None` once the journal is closed. Waiting for it is the backpressure of a slow ledger.
    pub(crate) async fn slot(&self) -> Option<Slot<'_>> {
        self.desk.reserve().await.ok().map(Slot)
    }

    /// Returns when everything handed in before is durable.
    pub(crate) async fn sync(&self) -> Result<(), StorageError> {
        self.ask(Message::Sync).await
    }

    /// Writes what is left and ends the journal.
    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        self.ask(Message::Close).await
    }

    async fn ask(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<(), StorageError>>) -> Message,
    ) -> Result<(), StorageError> {
        let (reply, answer) = oneshot::channel();
        self.desk.send(message(reply)).await.map_err(|_| dead())?;
        answer.await.unwrap_or_else(|_| Err(dead()))
    }

    /// Waits until nothing can be written any more, and says why.
    pub(crate) async fn broken(&self) -> StorageError {
        let mut health = self.health.clone();
        match health.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(dead),
            Err(_) => dead(),
        }
    }
}

fn dead() -> StorageError {
    StorageError::Failed {
        what: "writing the journal".into(),
        reason: "its task has ended".into(),
    }
}

struct Writer {
    inbox: mpsc::Receiver<Message>,
    blobs: Arc<dyn BlobStore>,
    vectors: Arc<dyn VectorStore>,
    ledger: Arc<dyn Ledger>,
    every: Duration,
    most: usize,
    group: Vec<Entry>,
    health: watch::Sender<Option<StorageError>>,
    measures: CommitMeasures,
}

impl Writer {
    async fn run(mut self) {
        let mut due: Option<Instant> = None;
        loop {
            let message = tokio::select! {
                message = self.inbox.recv() => message,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = self.commit().await.err().map(|_| Instant::now() + RECOVERY);
                    continue;
                }
            };
            match message {
                Some(Message::Entries(entries)) => {
                    self.keep(entries);
                    if self.group.len() >= self.most && self.healthy() {
                        due = self.commit().await.err().map(|_| Instant::now() + RECOVERY);
                    } else {
                        due.get_or_insert_with(|| Instant::now() + self.every);
                    }
                }
                Some(Message::Sync(reply)) => {
                    let written = self.commit().await;
                    due = written.as_ref().err().map(|_| Instant::now() + RECOVERY);
                    // Whoever asked may have gone.
                    let _ = reply.send(written);
                }
                Some(Message::Close(reply)) => {
                    let _ = reply.send(self.commit().await);
                    return;
                }
                None => {
                    let _ = self.commit().await;
                    return;
                }
            }
        }
    }

    fn healthy(&self) -> bool {
        self.health.borrow().is_none()
    }

    fn keep(&mut self, entries: Vec<Entry>) {
        if self.group.len() + entries.len() > KEPT {
            tracing::error!(
                lost = entries.len(),
                "ledger entries are lost: nothing can be written"
            );
        } else {
            self.group.extend(entries);
        }
    }

    async fn commit(&mut self) -> Result<(), StorageError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let mut attempt = 1;
        let error = loop {
            let began = Instant::now();
            match self.write().await {
                Ok(()) => {
                    let took = began.elapsed();
                    self.measures.seconds.record(took);
                    self.measures.commits.increment(1);
                    tracing::debug!(
                        entries = self.group.len(),
                        millis = took.as_millis() as u64,
                        "committed"
                    );
                    self.group.clear();
                    self.health.send_if_modified(|health| health.take().is_some());
                    return Ok(());
                }
                Err(error @ StorageError::Failed { .. }) if attempt < ATTEMPTS => {
                    tracing::warn!(%error, attempt, "a commit failed and is tried again");
                    attempt += 1;
                    sleep(PAUSE).await;
                }
                Err(error) => break error,
            }
        };
        tracing::error!(%error, entries = self.group.len(), "nothing can be written down, jobs are stopped");
        self.health.send_replace(Some(error.clone()));
        Err(error)
    }

    async fn write(&self) -> Result<(), StorageError> {
        if self.group.iter().any(|entry| matches!(entry, Entry::Page(_))) {
            self.blobs.flush().await?;
            self.vectors.flush().await?;
        }
        self.ledger.commit(self.group.clone()).await
    }
}
