//! A job: several documents, one pipeline at one revision, one event log.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use weir_core::event::{ErrorNote, Event, EventKind};
use weir_core::ledger::{Entry, JobRecord, JobState};
use weir_core::manifest::Pipeline;
use weir_core::ports::{JobPolicy, PolicyRequest};
use weir_core::{JobId, StorageError, TenantId};

use crate::Host;
use crate::capabilities::JobCapabilities;
use crate::document::{self, DocumentEnd, DocumentOutcome, DocumentSpec, Unfinished};
use crate::events::{EventLog, Observer};
use crate::failure::{STAGE_DIED, StageError, note};
use crate::halt::Halt;

/// What a job is to do.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Whose it is.
    pub tenant: TenantId,
    /// What decides, at one revision from beginning to end.
    pub pipeline: Arc<Pipeline>,
    /// The files.
    pub documents: Vec<DocumentSpec>,
    /// Whether pages that are done already are done again.
    pub force: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutcome {
    /// The job.
    pub id: JobId,
    /// `Done`, `Failed` or `Cancelled`.
    pub state: JobState,
    /// Why the job as a whole failed, if it was not for a document.
    pub error: Option<ErrorNote>,
    /// What became of each document, in the order they were given.
    pub documents: Vec<DocumentOutcome>,
}

/// A job that was started. The engine owns the job: dropping the handle changes nothing.
#[derive(Clone)]
pub struct JobHandle {
    id: JobId,
    log: Arc<EventLog>,
    halt: Halt,
    ended: watch::Receiver<Option<JobOutcome>>,
}

impl JobHandle {
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

    /// Takes no further pages; those in flight may end within the grace, then they are dropped. What is done is kept.
    pub fn cancel(&self) {
        self.halt.cancel();
    }

    /// Waits for the job to end.
    pub async fn wait(&self) -> JobOutcome {
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await.ok().and_then(|o| o.clone());
        outcome.unwrap_or_else(|| died(self.id))
    }
}

/// A job in work: what its documents share.
pub(crate) struct Job {
    pub(crate) host: Arc<Host>,
    pub(crate) id: JobId,
    pub(crate) tenant: TenantId,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) force: bool,
    pub(crate) policy: Arc<dyn JobPolicy>,
    pub(crate) log: Arc<EventLog>,
    pub(crate) halt: Halt,
    pub(crate) capabilities: Arc<JobCapabilities>,
}

impl Job {
    /// Waits until the job is stopped, and says how.
    pub(crate) async fn halted(&self) -> Unfinished {
        tokio::select! {
            biased;
            error = self.halt.failed() => Unfinished::Failed(error),
            error = self.host.journal.broken() => error.into(),
            () = self.halt.cancelled() => Unfinished::Cancelled,
        }
    }

    /// Does `step` unless the job is stopped before.
    pub(crate) async fn unless_halted<T>(&self, step: impl Future<Output = T>) -> Result<T, Unfinished> {
        tokio::select! {
            biased;
            halted = self.halted() => Err(halted),
            done = step => Ok(done),
        }
    }

    /// Does `step` unless the job is cancelled before.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        step: impl Future<Output = T>,
    ) -> Result<T, crate::failure::Stop> {
        tokio::select! {
            biased;
            () = self.halt.cancelled() => Err(crate::failure::Stop::Cancelled),
            done = step => Ok(done),
        }
    }
}

/// A job that is about to run.
pub(crate) struct Start {
    pub(crate) host: Arc<Host>,
    pub(crate) id: JobId,
    pub(crate) spec: JobSpec,
    pub(crate) log: Arc<EventLog>,
    pub(crate) observer: Observer,
    pub(crate) halt: Halt,
}

/// Gives the handle of a job that is about to run, and the future that runs it.
pub(crate) fn prepare(host: Arc<Host>, spec: JobSpec) -> (JobHandle, Halt, impl Future<Output = ()> + Send) {
    let id = JobId::new();
    let halt = Halt::new(host.config.cancel_grace);
    // Twice what the journal gathers: its group and its inbox.
    let kept = host
        .config
        .commit_entries
        .max(1)
        .saturating_mul(2)
        .saturating_add(512);
    let (log, observer) = EventLog::new(
        id,
        spec.tenant.clone(),
        host.journal.clone(),
        Arc::clone(&host.ports.ledger),
        kept,
    );
    let (ended, outcome) = watch::channel(None);
    let handle = JobHandle {
        id,
        log: Arc::clone(&log),
        halt: halt.clone(),
        ended: outcome,
    };
    let end = End {
        id,
        log: Arc::clone(&log),
        ended,
    };
    let start = Start {
        host,
        id,
        spec,
        log,
        observer,
        halt: halt.clone(),
    };
    let running = async move {
        let outcome = start.run().await;
        end.announce(outcome);
    };
    (handle, halt, running)
}

/// Makes sure that whoever waits for the job hears of its end, however it came.
struct End {
    id: JobId,
    log: Arc<EventLog>,
    ended: watch::Sender<Option<JobOutcome>>,
}

impl End {
    fn announce(&self, outcome: JobOutcome) {
        self.ended.send_replace(Some(outcome));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.ended.borrow().is_none() {
            self.announce(died(self.id));
        }
        self.log.close();
    }
}

fn died(id: JobId) -> JobOutcome {
    JobOutcome {
        id,
        state: JobState::Failed,
        error: Some(note(
            STAGE_DIED,
            "the job was dropped before its end: start it again, it goes on from there",
        )),
        documents: Vec::new(),
    }
}

impl Start {
    async fn run(self) -> JobOutcome {
        let Self {
            host,
            id,
            spec,
            log,
            observer,
            halt,
        } = self;
        let mut record = JobRecord {
            id,
            tenant: spec.tenant.clone(),
            pipeline: spec.pipeline.manifest.name.clone(),
            revision: spec.pipeline.revision,
            state: JobState::Running,
            created_millis: now_millis(),
        };
        if let Some(slot) = host.journal.slot().await {
            slot.write(vec![Entry::Job(record.clone())]);
        }
        let capabilities = JobCapabilities::new(&host.ports, spec.tenant.clone(), Arc::clone(&log));
        let request = PolicyRequest {
            tenant: &spec.tenant,
            job: id,
            pipeline: &spec.pipeline,
            capabilities: Arc::clone(&capabilities) as _,
        };
        let (documents, error) = match host.ports.policies.open(request).await {
            Ok(policy) => {
                let job = Arc::new(Job {
                    host: Arc::clone(&host),
                    id,
                    tenant: spec.tenant.clone(),
                    pipeline: Arc::clone(&spec.pipeline),
                    force: spec.force,
                    policy,
                    log: Arc::clone(&log),
                    halt: halt.clone(),
                    capabilities,
                });
                job.observed(observer, spec.documents).await
            }
            Err(error) => {
                let error = StageError::from(error).note();
                let mut outcomes = Vec::with_capacity(spec.documents.len());
                for document in spec.documents {
                    outcomes.push(refused(&log, document, &error).await);
                }
                (outcomes, Some(error))
            }
        };
        let failed = |d: &DocumentOutcome| matches!(d.end, DocumentEnd::Failed { .. });
        let cancelled = |d: &DocumentOutcome| matches!(d.end, DocumentEnd::Cancelled { .. });
        let state = if error.is_some() || documents.iter().any(failed) {
            JobState::Failed
        } else if documents.iter().any(cancelled) {
            JobState::Cancelled
        } else {
            JobState::Done
        };
        record.state = state;
        log.record(vec![Entry::Job(record)], None, EventKind::JobEnded { state })
            .await;
        let unwritten = host.journal.sync().await.err();
        JobOutcome {
            id,
            state: if unwritten.is_some() {
                JobState::Failed
            } else {
                state
            },
            error: error.or(unwritten.map(|e| StageError::from(e).note())),
            documents,
        }
    }
}

async fn refused(log: &EventLog, spec: DocumentSpec, error: &ErrorNote) -> DocumentOutcome {
    let what = EventKind::DocumentFailed {
        name: spec.name.clone(),
        error: error.clone(),
        done: 0,
    };
    log.say(None, what).await;
    DocumentOutcome {
        name: spec.name,
        document: None,
        end: DocumentEnd::Failed {
            error: error.clone(),
            done: 0,
        },
    }
}

impl Job {
    /// Runs the documents while the observer shows their events to the progress component.
    async fn observed(
        self: &Arc<Self>,
        observer: Observer,
        specs: Vec<DocumentSpec>,
    ) -> (Vec<DocumentOutcome>, Option<ErrorNote>) {
        let mut observing = JoinSet::new();
        observing.spawn(observer.run(Arc::clone(&self.log), Arc::clone(&self.policy), self.halt.clone()));
        let outcomes = {
            let mut documents = std::pin::pin!(self.documents(specs));
            tokio::select! {
                outcomes = &mut documents => outcomes,
                // It ends by itself only after it was asked to.
                Some(_) = observing.join_next() => {
                    self.halt.fail(note(STAGE_DIED, "the progress observer died: this is a fault of the host, see its log"));
                    documents.await
                }
            }
        };
        self.log.end_observation().await;
        while observing.join_next().await.is_some() {}
        (outcomes, self.halt.failure())
    }

    /// Runs the documents, several at a time. Small files come first; but where there are several slots, one of them takes
    /// the largest that is left, so that the big ones neither wait for all the others nor keep the job waiting at its end.
    async fn documents(self: &Arc<Self>, specs: Vec<DocumentSpec>) -> Vec<DocumentOutcome> {
        let mut waiting = Vec::with_capacity(specs.len());
        for (place, spec) in specs.iter().enumerate() {
            waiting.push((size(&spec.path).await, place, spec.clone()));
        }
        waiting.sort_by_key(|(bytes, place, _)| (*bytes, *place));
        let mut waiting = std::collections::VecDeque::from(waiting);
        let slots = self.host.config.documents.max(1);
        let mut outcomes: Vec<Option<DocumentOutcome>> = vec![None; specs.len()];
        let mut running: JoinSet<DocumentOutcome> = JoinSet::new();
        let mut places: HashMap<Id, usize> = HashMap::new();
        let mut large: Option<Id> = None;
        loop {
            while running.len() < slots {
                let take_large = slots > 1 && large.is_none() && !running.is_empty();
                let next = if take_large {
                    waiting.pop_back()
                } else {
                    waiting.pop_front()
                };
                let Some((_, place, spec)) = next else { break };
                let job = Arc::clone(self);
                let task = running.spawn(async move { document::ingest(&job, &spec).await });
                if take_large {
                    large = Some(task.id());
                }
                places.insert(task.id(), place);
            }
            let Some(ended) = running.join_next_with_id().await else {
                break;
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            if large == Some(id) {
                large = None;
            }
            let Some(place) = places.remove(&id) else { continue };
            let outcome = match (ended, specs.get(place)) {
                (Ok((_, outcome)), _) => outcome,
                (Err(died), Some(spec)) => {
                    tracing::error!(%died, name = spec.name, "a document's task died");
                    let error = note(
                        STAGE_DIED,
                        "the document's task died: this is a fault of the host, see its log",
                    );
                    refused(&self.log, spec.clone(), &error).await
                }
                (Err(_), None) => continue,
            };
            if let Some(slot) = outcomes.get_mut(place) {
                *slot = Some(outcome);
            }
        }
        outcomes.into_iter().flatten().collect()
    }
}

/// Bytes of a file; 0 if that cannot be told, which its opening will explain.
async fn size(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |m| m.len())
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
