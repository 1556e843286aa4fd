//! The event log of a job: one ordered sequence without gaps, the same for every reader.
//!
//! An event gets its number and is handed to the journal, to the progress component's queue and to those who watch, in one
//! step under one lock, so all of them see one order. Nobody who watches can hold anything up: a watcher is only a number,
//! the next event it wants, and takes it from the latest that are kept in memory or, if it has fallen behind those, from
//! the ledger. The progress component does count: it is promised every event, so its queue is bounded and a component that
//! is slower than the pages slows its own job down in the end, and no other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weir_core::decision::Observation;
use weir_core::event::{Event, EventKind};
use weir_core::ledger::Entry;
use weir_core::ports::{JobPolicy, Ledger};
use weir_core::said::{LogEntry, Remark};
use weir_core::{DocumentId, JobId, PolicyError, StorageError, TenantId};

use crate::failure::note;
use crate::halt::Halt;
use crate::journal::Journal;

/// Events that may wait for the progress component.
const OBSERVED: usize = 256;
/// Failed component calls that may wait to become events; a job that has more loses the report, not the call.
const FAULTS: usize = 256;
/// Events a watcher fetches from the ledger at a time.
const PAGE: usize = 256;

/// A job's log.
pub(crate) struct EventLog {
    job: JobId,
    tenant: TenantId,
    began: Instant,
    /// Milliseconds from the making of the job to `began`.
    age: AtomicU64,
    journal: Journal,
    ledger: Arc<dyn Ledger>,
    observer: mpsc::Sender<Seen>,
    faults: mpsc::Sender<PolicyError>,
    state: Mutex<State>,
    said: Mutex<Said>,
    /// Number of the last event.
    grew: watch::Sender<u64>,
    kept: usize,
}

#[derive(Default)]
struct State {
    last: u64,
    recent: VecDeque<Arc<Event>>,
    closed: bool,
}

/// What components said, until the next event is written.
#[derive(Default)]
struct Said {
    last: u64,
    unwritten: Vec<LogEntry>,
}

/// What the progress component is to see.
enum Seen {
    Event(u64, Observation),
    /// A document's end, which is announced only after the component has seen it.
    End(u64, Observation, oneshot::Sender<Result<(), PolicyError>>),
    /// The job is over.
    Over,
}

/// The other end of a log: what is to be shown to the progress component.
pub(crate) struct Observer {
    seen: mpsc::Receiver<Seen>,
    faults: mpsc::Receiver<PolicyError>,
}

impl EventLog {
    /// A new log. `kept` events stay in memory: at least as many as the journal may hold, so that what a watcher does not
    /// find here is in the ledger.
    pub(crate) fn new(
        job: JobId,
        tenant: TenantId,
        journal: Journal,
        ledger: Arc<dyn Ledger>,
        kept: usize,
    ) -> (Arc<Self>, Observer) {
        let (observer, seen) = mpsc::channel(OBSERVED);
        let (report, faults) = mpsc::channel(FAULTS);
        let log = Self {
            job,
            tenant,
            began: Instant::now(),
            age: AtomicU64::new(0),
            journal,
            ledger,
            observer,
            faults: report,
            state: Mutex::default(),
            said: Mutex::default(),
            grew: watch::Sender::new(0),
            kept,
        };
        (Arc::new(log), Observer { seen, faults })
    }

    /// Goes on behind event number `last` and number `said` of what components said, `age` milliseconds after the job was made.
    /// To be called before anything is written; those who watch are served from the ledger up to here.
    pub(crate) fn go_on(&self, last: u64, said: u64, age: u64) {
        self.said.lock().last = said;
        self.age.store(age, Ordering::Relaxed);
        self.state.lock().last = last;
        self.grew.send_replace(last);
    }

    /// Writes an event.
    pub(crate) async fn say(&self, document: Option<DocumentId>, what: EventKind) {
        self.record(Vec::new(), document, what).await;
    }

    /// Writes an event together with the ledger entries it tells of: both are kept, or neither. Dropped while it waits, it
    /// has done nothing.
    pub(crate) async fn record(&self, entries: Vec<Entry>, document: Option<DocumentId>, what: EventKind) {
        let observation = observation(document, &what);
        let seen = match &observation {
            Some(_) => self.observer.reserve().await.ok(),
            None => None,
        };
        // A journal that is gone has told the job so; watchers still see how it ends.
        let slot = self.journal.slot().await;
        let mut state = self.state.lock();
        state.last += 1;
        let at_millis = self.at_millis();
        let event = Event {
            seq: state.last,
            job: self.job,
            document,
            at_millis,
            what,
        };
        if let Some(slot) = slot {
            let mut entries = entries;
            let said = std::mem::take(&mut self.said.lock().unwritten);
            entries.extend(
                said.into_iter()
                    .map(|entry| Entry::Said(self.tenant.clone(), entry)),
            );
            entries.push(Entry::Event(self.tenant.clone(), event.clone()));
            slot.write(entries);
        }
        if let (Some(seen), Some(observation)) = (seen, observation) {
            seen.send(Seen::Event(at_millis, observation));
        }
        state.recent.push_back(Arc::new(event));
        if state.recent.len() > self.kept {
            state.recent.pop_front();
        }
        self.grew.send_replace(state.last);
    }

    /// Shows a document's end to the progress component, after everything before it, and waits until its updates are in the
    /// log: the document's own last event is then the last word.
    pub(crate) async fn show_end(&self, end: Observation) -> Result<(), PolicyError> {
        let (reply, answer) = oneshot::channel();
        if self
            .observer
            .send(Seen::End(self.at_millis(), end, reply))
            .await
            .is_err()
        {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }

    /// Lets the observer end, once it has shown everything before.
    pub(crate) async fn end_observation(&self) {
        // An observer that is gone has ended.
        let _ = self.observer.send(Seen::Over).await;
    }

    /// Notes that a default component answered in place of one that failed. Never waits.
    pub(crate) fn policy_failed(&self, error: &PolicyError) {
        if self.faults.try_send(error.clone()).is_err() {
            tracing::warn!(job = %self.job, %error, "too many failed component calls, one is not reported");
        }
    }

    /// Keeps what a component said until the next event, of which there is one for whatever happens in a job. Never waits; what
    /// a job may say is bounded where it is said.
    pub(crate) fn said(&self, remark: Remark) {
        let mut said = self.said.lock();
        said.last += 1;
        let entry = LogEntry {
            job: self.job,
            seq: said.last,
            at_millis: self.at_millis(),
            remark,
        };
        said.unwritten.push(entry);
    }

    /// Nothing more will be written.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.grew.send_modify(|_| ());
    }

    /// The events after number `after`, in order, and each as it comes until the job has ended.
    pub(crate) fn watch(self: &Arc<Self>, after: u64) -> BoxStream<'static, Result<Event, StorageError>> {
        let watcher = Watcher {
            grew: self.grew.subscribe(),
            log: Arc::clone(self),
            next: after + 1,
            fetched: VecDeque::new(),
            ended: false,
        };
        stream::unfold(watcher, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((event, watcher))
        })
        .boxed()
    }

    fn at_millis(&self) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        since.saturating_add(self.age.load(Ordering::Relaxed))
    }
}

struct Watcher {
    log: Arc<EventLog>,
    grew: watch::Receiver<u64>,
    next: u64,
    fetched: VecDeque<Event>,
    ended: bool,
}

/// Where a watcher's next event is.
enum Where {
    Here(Event),
    InTheLedger,
    ToCome,
    Nowhere,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Event, StorageError>> {
        while !self.ended {
            if let Some(event) = self.fetched.pop_front() {
                self.next += 1;
                return Some(Ok(event));
            }
            match self.look() {
                Where::Here(event) => {
                    self.next += 1;
                    return Some(Ok(event));
                }
                Where::InTheLedger => match self.fetch().await {
                    Ok(events) => self.fetched = events,
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
                Where::ToCome => self.grew.changed().await.ok()?,
                Where::Nowhere => self.ended = true,
            }
        }
        None
    }

    fn look(&mut self) -> Where {
        self.grew.mark_unchanged();
        let state = self.log.state.lock();
        let first = state.recent.front().map_or(state.last + 1, |event| event.seq);
        if self.next > state.last {
            return if state.closed {
                Where::Nowhere
            } else {
                Where::ToCome
            };
        }
        match self
            .next
            .checked_sub(first)
            .and_then(|i| state.recent.get(i as usize))
        {
            Some(event) => Where::Here(Event::clone(event)),
            None => Where::InTheLedger,
        }
    }

    /// The next events from the ledger; an error if they are not all there, which a failing ledger can cause.
    async fn fetch(&self) -> Result<VecDeque<Event>, StorageError> {
        let log = &self.log;
        let events = log
            .ledger
            .events(&log.tenant, &log.job, self.next - 1, PAGE)
            .await?;
        if events.first().is_none_or(|event| event.seq != self.next) {
            return Err(StorageError::Missing {
                what: format!("event {} of job {}", self.next, log.job),
            });
        }
        Ok(events.into())
    }
}

impl Observer {
    /// Shows the component each event in turn and writes down what it says, until the job is over.
    /// If the component fails for good, the job is halted.
    pub(crate) async fn run(mut self, log: Arc<EventLog>, policy: Arc<dyn JobPolicy>, halt: Halt) {
        loop {
            let seen = tokio::select! {
                biased;
                Some(error) = self.faults.recv() => {
                    log.say(None, EventKind::PolicyFailed { error: note(error.kind(), &error) }).await;
                    continue;
                }
                seen = self.seen.recv() => seen,
            };
            let (at_millis, observation, reply) = match seen {
                None | Some(Seen::Over) => return,
                Some(Seen::Event(at, observation)) => (at, observation, None),
                Some(Seen::End(at, observation, reply)) => (at, observation, Some(reply)),
            };
            let answered = tokio::select! {
                biased;
                () = halt.over() => Ok(Vec::new()),
                answered = policy.observe(at_millis, observation) => answered,
            };
            let shown = match answered {
                Ok(updates) => {
                    for update in updates {
                        let progress = EventKind::Progress {
                            percent: update.percent,
                            message: update.message,
                            seconds_left: update.seconds_left,
                        };
                        log.say(Some(update.document), progress).await;
                    }
                    Ok(())
                }
                Err(error) => {
                    halt.fail(note(error.kind(), &error));
                    Err(error)
                }
            };
            if let Some(reply) = reply {
                // A document that was cancelled meanwhile does not wait for it any more.
                let _ = reply.send(shown);
            }
        }
    }
}

/// What the progress component is told of an event. A document's end is shown to it by [`EventLog::show_end`].
fn observation(document: Option<DocumentId>, what: &EventKind) -> Option<Observation> {
    let document = document?;
    Some(match what {
        EventKind::DocumentStarted {
            name,
            pages,
            already_done,
        } => Observation::DocumentStarted {
            document,
            name: name.clone(),
            pages: *pages,
            already_done: *already_done,
        },
        EventKind::BatchRasterized {
            pages, queues, times, ..
        } => Observation::BatchRasterized {
            document,
            pages: *pages,
            queues: queues.clone(),
            times: times.clone(),
        },
        EventKind::PageDone {
            page,
            searchable,
            passages,
        } => Observation::PageDone {
            document,
            page: *page,
            searchable: *searchable,
            passages: *passages,
        },
        EventKind::PageFailed { page, stage, error } => Observation::PageFailed {
            document,
            page: *page,
            stage: *stage,
            message: error.message.clone(),
        },
        _ => return None,
    })
}
