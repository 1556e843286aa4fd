//! The event log of a job: one ordered sequence without gaps, the same for every reader.
//!
//! An event gets its number and goes to the group commit, to the queue of the progress component and to the subscribers in one
//! step under one lock. So all of them see the same order.
//!
//! A subscriber never delays the job. It only stores the number of the next event that it wants, and reads that event from memory
//! or, if it has fallen behind the events in memory, from the ledger. The progress component must see every event, so its queue is
//! bounded. A component that is slower than the pages therefore slows down its own job, and no other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weir_core::component_log::{ComponentLogEntry, ComponentLogRecord};
use weir_core::decision::ObservedEvent;
use weir_core::event::{Event, EventKind};
use weir_core::ledger::LedgerEntry;
use weir_core::ports::Ledger;
use weir_core::{DocumentId, JobId, PolicyError, StorageError, TenantId};

use crate::group_commit::GroupCommit;

/// The most events that wait for the progress component.
const OBSERVER_QUEUE_CAPACITY: usize = 256;
/// The most failed policy calls that wait to become events. Further reports are dropped with a log record.
const POLICY_FAILURE_CAPACITY: usize = 256;
/// The most events that a subscriber fetches from the ledger at a time.
const LEDGER_FETCH_EVENTS: usize = 256;

/// The event log of one job.
pub(crate) struct EventLog {
    job: JobId,
    tenant: TenantId,
    began: Instant,
    /// Milliseconds from the creation of the job to `began`.
    age_millis: AtomicU64,
    group_commit: GroupCommit,
    ledger: Arc<dyn Ledger>,
    observer: mpsc::Sender<ObserverMessage>,
    policy_failures: mpsc::Sender<PolicyError>,
    state: Mutex<LogState>,
    component_log: Mutex<ComponentLogBuffer>,
    /// The number of the last event.
    last_seq: watch::Sender<u64>,
    max_recent: usize,
}

#[derive(Default)]
struct LogState {
    last: u64,
    recent: VecDeque<Arc<Event>>,
    closed: bool,
}

/// Entries of the component log that are written with the next event.
#[derive(Default)]
struct ComponentLogBuffer {
    last_seq: u64,
    unwritten: Vec<ComponentLogEntry>,
}

/// A message to the observer that calls the progress component.
pub(crate) enum ObserverMessage {
    Event(u64, ObservedEvent),
    /// The end of a document. Its event is written only after the component has seen this.
    DocumentEnd(u64, ObservedEvent, oneshot::Sender<Result<(), PolicyError>>),
    /// The job is over and the observer ends.
    JobOver,
}

/// The receiving end of a log, for the progress observer.
pub(crate) struct ObserverQueue {
    pub(crate) messages: mpsc::Receiver<ObserverMessage>,
    pub(crate) policy_failures: mpsc::Receiver<PolicyError>,
}

impl EventLog {
    /// Creates a log and the queue of its observer. `max_recent` is the number of events that stay in memory. It must be at least the number
    /// of entries that the group commit may hold, so that older events are in the ledger.
    pub(crate) fn new(
        job: JobId,
        tenant: TenantId,
        group_commit: GroupCommit,
        ledger: Arc<dyn Ledger>,
        max_recent: usize,
    ) -> (Arc<Self>, ObserverQueue) {
        let (observer, messages) = mpsc::channel(OBSERVER_QUEUE_CAPACITY);
        let (failure_sender, policy_failures) = mpsc::channel(POLICY_FAILURE_CAPACITY);
        let log = Self {
            job,
            tenant,
            began: Instant::now(),
            age_millis: AtomicU64::new(0),
            group_commit,
            ledger,
            observer,
            policy_failures: failure_sender,
            state: Mutex::default(),
            component_log: Mutex::default(),
            last_seq: watch::Sender::new(0),
            max_recent,
        };
        (
            Arc::new(log),
            ObserverQueue {
                messages,
                policy_failures,
            },
        )
    }

    /// Continues the log of a recovered job. `last_seq` is the number of its last event, `last_log_seq` the number of its last
    /// component log entry and `age_millis` the time since the job was created.
    ///
    /// Must be called before anything is written. Subscribers get the earlier events from the ledger.
    pub(crate) fn resume_after(&self, last_seq: u64, last_log_seq: u64, age_millis: u64) {
        self.component_log.lock().last_seq = last_log_seq;
        self.age_millis.store(age_millis, Ordering::Relaxed);
        self.state.lock().last = last_seq;
        self.last_seq.send_replace(last_seq);
    }

    /// Writes an event.
    pub(crate) async fn write_event(&self, document: Option<DocumentId>, what: EventKind) {
        self.write_event_with_entries(Vec::new(), document, what).await;
    }

    /// Writes an event and the ledger entries that belong to it: all of them are committed, or none. Dropping the future while it
    /// waits has no effect.
    pub(crate) async fn write_event_with_entries(
        &self,
        entries: Vec<LedgerEntry>,
        document: Option<DocumentId>,
        what: EventKind,
    ) {
        let observation = to_observation(document, &what);
        let seen = match &observation {
            Some(_) => self.observer.reserve().await.ok(),
            None => None,
        };
        // If the group commit is closed, the job knows that already. Subscribers still see how it ends.
        let slot = self.group_commit.reserve_entry().await;
        let mut state = self.state.lock();
        state.last += 1;
        let at_millis = self.job_age_millis();
        let event = Event {
            seq: state.last,
            job: self.job,
            document,
            since_job_created_millis: at_millis,
            kind: what,
        };
        if let Some(slot) = slot {
            let mut entries = entries;
            let said = std::mem::take(&mut self.component_log.lock().unwritten);
            entries.extend(
                said.into_iter()
                    .map(|entry| LedgerEntry::ComponentLog(self.tenant.clone(), entry)),
            );
            entries.push(LedgerEntry::Event(self.tenant.clone(), event.clone()));
            slot.submit(entries);
        }
        if let (Some(seen), Some(observation)) = (seen, observation) {
            seen.send(ObserverMessage::Event(at_millis, observation));
        }
        state.recent.push_back(Arc::new(event));
        if state.recent.len() > self.max_recent {
            state.recent.pop_front();
        }
        self.last_seq.send_replace(state.last);
    }

    /// Shows a document's end to the progress component, after all earlier events, and waits until the resulting updates are in
    /// the log. So the last event of the document comes after them.
    pub(crate) async fn observe_document_end(&self, end: ObservedEvent) -> Result<(), PolicyError> {
        let (reply, answer) = oneshot::channel();
        if self
            .observer
            .send(ObserverMessage::DocumentEnd(self.job_age_millis(), end, reply))
            .await
            .is_err()
        {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }

    /// Asks the observer to end after all earlier messages.
    pub(crate) async fn stop_observer(&self) {
        // Sending fails only if the observer has ended already.
        let _ = self.observer.send(ObserverMessage::JobOver).await;
    }

    /// Reports that the default component took over from a tenant's component that failed. Never waits.
    pub(crate) fn report_policy_failure(&self, error: &PolicyError) {
        if self.policy_failures.try_send(error.clone()).is_err() {
            tracing::warn!(job = %self.job, %error, "too many failed policy calls, one is not reported as an event");
        }
    }

    /// Buffers an entry of the component log, which is written with the next event of the job. Never waits. The policy host limits
    /// the number of entries of a job.
    pub(crate) fn append_component_log(&self, remark: ComponentLogRecord) {
        let mut said = self.component_log.lock();
        said.last_seq += 1;
        let entry = ComponentLogEntry {
            job: self.job,
            seq: said.last_seq,
            since_job_created_millis: self.job_age_millis(),
            record: remark,
        };
        said.unwritten.push(entry);
    }

    /// Closes the log: no further event is written, and subscriptions end after the last event.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.last_seq.send_modify(|_| ());
    }

    /// Streams the events after number `after`, in order, until the job has ended.
    pub(crate) fn subscribe(self: &Arc<Self>, after: u64) -> BoxStream<'static, Result<Event, StorageError>> {
        let watcher = EventWatcher {
            last_seq: self.last_seq.subscribe(),
            log: Arc::clone(self),
            next_seq: after + 1,
            fetched: VecDeque::new(),
            ended: false,
        };
        stream::unfold(watcher, |mut watcher| async move {
            let event = watcher.next_event().await?;
            Some((event, watcher))
        })
        .boxed()
    }

    fn job_age_millis(&self) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        since.saturating_add(self.age_millis.load(Ordering::Relaxed))
    }
}

struct EventWatcher {
    log: Arc<EventLog>,
    last_seq: watch::Receiver<u64>,
    next_seq: u64,
    fetched: VecDeque<Event>,
    ended: bool,
}

/// The location of a subscriber's next event.
enum EventPosition {
    InMemory(Event),
    InLedger,
    NotWrittenYet,
    AfterEnd,
}

impl EventWatcher {
    async fn next_event(&mut self) -> Option<Result<Event, StorageError>> {
        while !self.ended {
            if let Some(event) = self.fetched.pop_front() {
                self.next_seq += 1;
                return Some(Ok(event));
            }
            match self.locate_next_event() {
                EventPosition::InMemory(event) => {
                    self.next_seq += 1;
                    return Some(Ok(event));
                }
                EventPosition::InLedger => match self.fetch_from_ledger().await {
                    Ok(events) => self.fetched = events,
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
                EventPosition::NotWrittenYet => self.last_seq.changed().await.ok()?,
                EventPosition::AfterEnd => self.ended = true,
            }
        }
        None
    }

    fn locate_next_event(&mut self) -> EventPosition {
        self.last_seq.mark_unchanged();
        let state = self.log.state.lock();
        let first = state.recent.front().map_or(state.last + 1, |event| event.seq);
        if self.next_seq > state.last {
            return if state.closed {
                EventPosition::AfterEnd
            } else {
                EventPosition::NotWrittenYet
            };
        }
        match self
            .next_seq
            .checked_sub(first)
            .and_then(|i| state.recent.get(i as usize))
        {
            Some(event) => EventPosition::InMemory(Event::clone(event)),
            None => EventPosition::InLedger,
        }
    }

    /// Fetches the next events from the ledger. It is an error if the next one is missing, which a failing ledger can cause.
    async fn fetch_from_ledger(&self) -> Result<VecDeque<Event>, StorageError> {
        let log = &self.log;
        let events = log
            .ledger
            .list_job_events(&log.tenant, &log.job, self.next_seq - 1, LEDGER_FETCH_EVENTS)
            .await?;
        if events.first().is_none_or(|event| event.seq != self.next_seq) {
            return Err(StorageError::NotFound {
                what: format!("event {} of job {}", self.next_seq, log.job),
            });
        }
        Ok(events.into())
    }
}

/// Converts an event for the progress component; `None` if the component does not see it. The end of a document is sent by
/// [`EventLog::observe_document_end`] instead.
fn to_observation(document: Option<DocumentId>, what: &EventKind) -> Option<ObservedEvent> {
    let document = document?;
    Some(match what {
        EventKind::DocumentStarted {
            name,
            pages,
            already_done,
        } => ObservedEvent::DocumentStarted {
            document,
            name: name.clone(),
            pages: *pages,
            already_done: *already_done,
        },
        EventKind::BatchRasterized {
            pages,
            queues,
            stage_timings: times,
            ..
        } => ObservedEvent::BatchRasterized {
            document,
            pages: *pages,
            queues: queues.clone(),
            stage_timings: times.clone(),
        },
        EventKind::PageDone {
            page,
            searchable,
            passages,
        } => ObservedEvent::PageDone {
            document,
            page: *page,
            searchable: *searchable,
            passages: *passages,
        },
        EventKind::PageFailed { page, stage, error } => ObservedEvent::PageFailed {
            document,
            page: *page,
            stage: *stage,
            message: error.message.clone(),
        },
        _ => return None,
    })
}
