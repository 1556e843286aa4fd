//! What whoever started a job holds of it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::sync::watch;
use weir_core::decision::StageWork;
use weir_core::event::Event;
use weir_core::ledger::JobState;
use weir_core::{JobId, StorageError};

use crate::events::EventLog;
use crate::failure::{STAGE_DIED, note};
use crate::halt::Halt;
use crate::outcome::JobOutcome;
use crate::spent::Spent;

/// A job that was started. The engine owns the job: dropping the handle changes nothing.
#[derive(Clone)]
pub struct JobHandle {
    id: JobId,
    log: Arc<EventLog>,
    halt: Halt,
    spent: Arc<Spent>,
    ended: watch::Receiver<Option<JobOutcome>>,
}

impl JobHandle {
    /// The handle, and the duty to announce the job's end.
    pub(crate) fn new(id: JobId, log: Arc<EventLog>, halt: Halt, spent: Arc<Spent>) -> (Self, End) {
        let (announced, ended) = watch::channel(None);
        let end = End {
            id,
            log: Arc::clone(&log),
            announced,
        };
        let handle = Self {
            id,
            log,
            halt,
            spent,
            ended,
        };
        (handle, end)
    }

    /// The job's id.
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// Every event from the first on, in order and without gaps, each as it comes, until the job has ended. Events are
    /// never held back for a reader: one that falls far behind is served from the ledger, and gets an error if that cannot
    /// be read.
    pub fn events(&self) -> BoxStream<'static, Result<Event, StorageError>> {
        self.log.watch(0)
    }

    /// The same, from the event after `seq` on.
    pub fn events_after(&self, seq: u64) -> BoxStream<'static, Result<Event, StorageError>> {
        self.log.watch(seq)
    }

    /// What each stage has done for the job so far, since it was started here.
    pub fn work(&self) -> Vec<StageWork> {
        self.spent.work()
    }

    /// Takes no further pages; those in flight may end within the grace, then they are dropped. What is done is kept.
    pub fn cancel(&self) {
        self.halt.cancel();
    }

    /// Takes no further pages; those in flight may end within `grace`, then they are dropped. Unless that was all of it,
    /// the job has not ended: started again under its id, it goes on.
    pub(crate) fn suspend(&self, grace: Duration) {
        self.halt.suspend(grace);
    }

    /// Waits until the job has ended, or is not worked on any more: see [`JobOutcome::state`].
    pub async fn wait(&self) -> JobOutcome {
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await.ok().and_then(|o| o.clone());
        outcome.unwrap_or_else(|| dropped(self.id))
    }
}

/// Makes sure that whoever waits for the job or watches it hears of its end, however it came.
pub(crate) struct End {
    id: JobId,
    log: Arc<EventLog>,
    announced: watch::Sender<Option<JobOutcome>>,
}

impl End {
    /// The job has ended.
    pub(crate) fn announce(self, outcome: JobOutcome) {
        self.announced.send_replace(Some(outcome));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.announced.send_if_modified(|outcome| {
            let unheard = outcome.is_none();
            outcome.get_or_insert_with(|| dropped(self.id));
            unheard
        });
        self.log.close();
    }
}

fn dropped(id: JobId) -> JobOutcome {
    JobOutcome {
        id,
        state: JobState::Running,
        error: Some(note(
            STAGE_DIED,
            "the job was dropped before its end: start it again, it goes on from there",
        )),
        held: None,
        documents: Vec::new(),
        policy: weir_core::ports::PolicyTally::default(),
    }
}
