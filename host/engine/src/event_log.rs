//! The event log of a job: one ordered sequence without gaps, the same for every reader.
//!
//! An event gets its number and goes to the group commit, to the queue of the progress component and to the subscribers in one
//! step under one lock. So all of them see the same order.
//!
//! A subscriber never delays the job. It only stores the number of the next event that it wants, and reads that event from memory
//! or, if it has fallen behind the events in memory, from the ledger. The progress component must see every event, so its queue
//! is bounded. A component that is slower than the pages therefore slows down its own job, and no other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weir_core::component_log::{ComponentLogRecord, NumberedComponentLogRecord};
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
    age_at_start_millis: AtomicU64,
    group_commit: GroupCommit,
    ledger: Arc<dyn Ledger>,
    observer: mpsc::Sender<ProgressObserverMessage>,
    policy_failures: mpsc::Sender<PolicyError>,
    state: Mutex<LogState>,
    component_log: Mutex<UnwrittenComponentLogEntries>,
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
struct UnwrittenComponentLogEntries {
    last_seq: u64,
    unwritten: Vec<NumberedComponentLogRecord>,
}

/// A message to the observer that calls the progress component.
pub(crate) enum ProgressObserverMessage {
    Event(u64, ObservedEvent),
    /// The end of a document. Its event is written only after the component has seen this.
    DocumentEnd(u64, ObservedEvent, oneshot::Sender<Result<(), PolicyError>>),
    /// The job is over and the observer ends.
    JobOver,
}

/// The receiving end of a log, for the progress observer.
pub(crate) struct ProgressObserverQueue {
    pub(crate) messages: mpsc::Receiver<ProgressObserverMessage>,
    pub(crate) policy_failures: mpsc::Receiver<PolicyError>,
}

impl EventLog {
    /// Creates a log and the queue of its observer. `max_recent` is the number of events that stay in memory. It must be at
    /// least the number of entries that the group commit may hold, so that older events are in the ledger.
    pub(crate) fn new(
        job: JobId,
        tenant: TenantId,
        group_commit: GroupCommit,
        ledger: Arc<dyn Ledger>,
        max_recent: usize,
    ) -> (Arc<Self>, ProgressObserverQueue) {
        let (observer, messages) = mpsc::channel(OBSERVER_QUEUE_CAPACITY);
        let (failure_sender, policy_failures) = mpsc::channel(POLICY_FAILURE_CAPACITY);
        let log = Self {
            job,
            tenant,
            began: Instant::now(),
            age_at_start_millis: AtomicU64::new(0),
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
            ProgressObserverQueue {
                messages,
                policy_failures,
            },
        )
    }

    /// Continues the log of a recovered job. `last_seq` is the number of its last event, `last_log_seq` the number of its last
    /// component log entry and `age_millis` the time since the job was created.
    ///
    /// Must be called before anything is written. Subscribers get the earlier events from the ledger.
    pub(crate) fn continue_numbering_after(&self, last_seq: u64, last_log_seq: u64, age_millis: u64) {
        self.component_log.lock().last_seq = last_log_seq;
        self.age_at_start_millis.store(age_millis, Ordering::Relaxed);
        self.state.lock().last = last_seq;
        self.last_seq.send_replace(last_seq);
    }

    /// Submits ledger entries without an event.
    pub(crate) async fn submit_ledger_entries(&self, entries: Vec<LedgerEntry>) {
        // If the group commit is closed, the job knows that already.
        if let Some(reservation) = self.group_commit.reserve_submission().await {
            reservation.submit_entries(entries);
        }
    }

    /// Writes an event.
    pub(crate) async fn write_event(&self, document: Option<DocumentId>, kind: EventKind) {
        self.write_event_with_ledger_entries(Vec::new(), document, kind)
            .await;
    }

    /// Writes an event and the ledger entries that belong to it: all of them are committed, or none. Dropping the future while it
    /// waits has no effect.
    pub(crate) async fn write_event_with_ledger_entries(
        &self,
        entries: Vec<LedgerEntry>,
        document: Option<DocumentId>,
        kind: EventKind,
    ) {
        let observation = to_observed_event(document, &kind);
        let observer_permit = match &observation {
            Some(_) => self.observer.reserve().await.ok(),
            None => None,
        };
        // If the group commit is closed, the job knows that already. Subscribers still see how it ends.
        let reservation = self.group_commit.reserve_submission().await;
        let mut state = self.state.lock();
        state.last += 1;
        let at_millis = self.job_age_millis();
        let event = Event {
            seq: state.last,
            job: self.job,
            document,
            since_job_created_millis: at_millis,
            kind,
        };
        if let Some(reservation) = reservation {
            let mut entries = entries;
            let log_entries = std::mem::take(&mut self.component_log.lock().unwritten);
            entries.extend(
                log_entries
                    .into_iter()
                    .map(|entry| LedgerEntry::ComponentLog(self.tenant.clone(), entry)),
            );
            entries.push(LedgerEntry::Event(self.tenant.clone(), event.clone()));
            reservation.submit_entries(entries);
        }
        if let (Some(observer_permit), Some(observation)) = (observer_permit, observation) {
            observer_permit.send(ProgressObserverMessage::Event(at_millis, observation));
        }
        state.recent.push_back(Arc::new(event));
        if state.recent.len() > self.max_recent {
            state.recent.pop_front();
        }
        self.last_seq.send_replace(state.last);
    }

    /// Sends a document's end to the progress component, after all earlier events, and waits until the resulting updates are in
    /// the log. So the last event of the document comes after them.
    pub(crate) async fn notify_document_end_and_wait(&self, end: ObservedEvent) -> Result<(), PolicyError> {
        let (reply, response) = oneshot::channel();
        if self
            .observer
            .send(ProgressObserverMessage::DocumentEnd(
                self.job_age_millis(),
                end,
                reply,
            ))
            .await
            .is_err()
        {
            return Ok(());
        }
        response.await.unwrap_or(Ok(()))
    }

    /// Asks the observer to end after all earlier messages.
    pub(crate) async fn stop_observer(&self) {
        // Sending fails only if the observer has ended already.
        let _ = self.observer.send(ProgressObserverMessage::JobOver).await;
    }

    /// Reports that the default component took over from a tenant's component that failed. Never waits.
    pub(crate) fn queue_policy_fallback_event(&self, error: &PolicyError) {
        if self.policy_failures.try_send(error.clone()).is_err() {
            tracing::warn!(job = %self.job, %error, "too many failed policy calls, one is not reported as an event");
        }
    }

    /// Buffers an entry of the component log, which is written with the next event of the job. Never waits. The policy host
    /// limits the number of entries of a job.
    pub(crate) fn buffer_component_log_entry(&self, record: ComponentLogRecord) {
        let mut buffer = self.component_log.lock();
        buffer.last_seq += 1;
        let entry = NumberedComponentLogRecord {
            job: self.job,
            seq: buffer.last_seq,
            since_job_created_millis: self.job_age_millis(),
            record,
        };
        buffer.unwritten.push(entry);
    }

    /// Closes the log: no further event is written, and subscriptions end after the last event.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.last_seq.send_modify(|_| ());
    }

    /// Streams the events after number `after`, in order, until the job has ended.
    pub(crate) fn subscribe(self: &Arc<Self>, after: u64) -> BoxStream<'static, Result<Event, StorageError>> {
        let watcher = EventSubscription {
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
        since.saturating_add(self.age_at_start_millis.load(Ordering::Relaxed))
    }
}

struct EventSubscription {
    log: Arc<EventLog>,
    last_seq: watch::Receiver<u64>,
    next_seq: u64,
    fetched: VecDeque<Event>,
    ended: bool,
}

/// The location of a subscriber's next event.
enum NextEventLocation {
    InMemory(Event),
    InLedger,
    NotWrittenYet,
    AfterEnd,
}

impl EventSubscription {
    async fn next_event(&mut self) -> Option<Result<Event, StorageError>> {
        while !self.ended {
            if let Some(event) = self.fetched.pop_front() {
                self.next_seq += 1;
                return Some(Ok(event));
            }
            match self.locate_next_event() {
                NextEventLocation::InMemory(event) => {
                    self.next_seq += 1;
                    return Some(Ok(event));
                }
                NextEventLocation::InLedger => match self.fetch_from_ledger().await {
                    Ok(events) => self.fetched = events,
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
                NextEventLocation::NotWrittenYet => self.last_seq.changed().await.ok()?,
                NextEventLocation::AfterEnd => self.ended = true,
            }
        }
        None
    }

    fn locate_next_event(&mut self) -> NextEventLocation {
        self.last_seq.mark_unchanged();
        let state = self.log.state.lock();
        let first = state.recent.front().map_or(state.last + 1, |event| event.seq);
        if self.next_seq > state.last {
            return if state.closed {
                NextEventLocation::AfterEnd
            } else {
                NextEventLocation::NotWrittenYet
            };
        }
        match self
            .next_seq
            .checked_sub(first)
            .and_then(|i| state.recent.get(i as usize))
        {
            Some(event) => NextEventLocation::InMemory(Event::clone(event)),
            None => NextEventLocation::InLedger,
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
/// [`EventLog::notify_document_end_and_wait`] instead.
fn to_observed_event(document: Option<DocumentId>, kind: &EventKind) -> Option<ObservedEvent> {
    let document = document?;
    Some(match kind {
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
