//! A job's run, from its first ledger entry to its last.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument as _;
use weir_core::event::{ErrorNote, EventKind};
use weir_core::ledger::{Entry, JobRecord, JobState};
use weir_core::ports::{Account, PolicyRequest, PolicyTally};
use weir_core::usage::QuotaExhausted;
use weir_core::{Lane, StorageError};

use crate::Host;
use crate::capabilities::JobCapabilities;
use crate::document::{self, now_millis};
use crate::events::{EventLog, Observer};
use crate::failure::{STAGE_DIED, StageError, Unfinished, note};
use crate::halt::Halt;
use crate::handle::JobHandle;
use crate::head_start;
use crate::job::{self, Job};
use crate::lineup::Lineup;
use crate::model_requests::ModelRequests;
use crate::outcome::{DocumentEnd, DocumentOutcome, JobOutcome};
use crate::past::Past;
use crate::spans;
use crate::spec::{DocumentSpec, JobSpec};
use crate::spent::Spent;

/// Gives the handle of a job that is about to run, and the future that runs it.
pub(crate) fn prepare(host: Arc<Host>, spec: JobSpec) -> (JobHandle, impl Future<Output = ()> + Send) {
    let id = spec.id;
    let halt = Halt::new(host.config.cancel_grace);
    let (log, observer) = EventLog::new(
        id,
        spec.tenant.clone(),
        host.journal.clone(),
        Arc::clone(&host.ports.ledger),
        // The journal's group and its inbox, and something to spare.
        host.config
            .commit_entries
            .max(1)
            .saturating_mul(2)
            .saturating_add(512),
    );
    let spent = Spent::new();
    let (handle, end) = JobHandle::new(id, Arc::clone(&log), halt.clone(), Arc::clone(&spent));
    let listed = host.jobs.list(handle.clone(), &host.measures.running);
    let (tenant, urgent) = (spec.tenant.clone(), spec.lane != Some(Lane::Bulk));
    let start = Start {
        record: JobRecord {
            id,
            tenant: spec.tenant.clone(),
            pipeline: spec.pipeline.manifest.name.clone(),
            revision: spec.pipeline.revision,
            state: JobState::Running,
            created_millis: now_millis(),
        },
        host: Arc::clone(&host),
        spec,
        log,
        halt,
        spent,
    };
    let run = async move {
        let outcome = head_start::run(&host, &tenant, urgent, start.run(observer)).await;
        // Who hears of the end may start the job again.
        drop(listed);
        end.announce(outcome);
    };
    (handle, run)
}

/// A job from its first ledger entry to its last.
struct Start {
    host: Arc<Host>,
    record: JobRecord,
    spec: JobSpec,
    log: Arc<EventLog>,
    halt: Halt,
    spent: Arc<Spent>,
}

impl Start {
    async fn run(mut self, observer: Observer) -> JobOutcome {
        if let Err(unread) = self.go_on().await {
            // Nothing has been written, so the ledger has the job as it was.
            return JobOutcome {
                id: self.record.id,
                state: JobState::Running,
                error: Some(StageError::from(unread).note()),
                held: None,
                documents: Vec::new(),
                policy: PolicyTally::default(),
            };
        }
        // A journal that is gone tells the documents so.
        if let Some(slot) = self.host.journal.slot().await {
            slot.write(vec![Entry::Job(self.record.clone())]);
        }
        let work = AssertUnwindSafe(self.work(observer)).catch_unwind();
        let Worked {
            documents,
            held,
            mut error,
            policy,
        } = work.await.unwrap_or_else(|_| {
            let message = "the job's task died: this is a fault of the host, see its log";
            Worked::failed(Vec::new(), note(STAGE_DIED, message))
        });
        let failed = |d: &DocumentOutcome| matches!(d.end, DocumentEnd::Failed { .. });
        let cancelled = |d: &DocumentOutcome| matches!(d.end, DocumentEnd::Cancelled { .. });
        let suspended = |d: &DocumentOutcome| matches!(d.end, DocumentEnd::Suspended { .. });
        let mut state = if error.is_some() {
            JobState::Failed
        } else if documents.iter().any(suspended) {
            JobState::Running
        } else if documents.iter().any(failed) {
            JobState::Failed
        } else if documents.iter().any(cancelled) {
            JobState::Cancelled
        } else {
            JobState::Done
        };
        if let Some(held) = held.filter(|_| state == JobState::Running) {
            tracing::warn!(
                quota = held.quota,
                limit = held.limit,
                "the job is held until its quota allows more"
            );
            let error = note(QuotaExhausted::KIND, held);
            self.log.say(None, EventKind::JobHeld { error }).await;
        }
        if state != JobState::Running {
            self.record.state = state;
            let entries = vec![Entry::Job(self.record.clone())];
            let stages = self.spent.work();
            self.log
                .record(entries, None, EventKind::JobEnded { state, stages })
                .await;
        }
        if let Err(unwritten) = self.host.journal.sync().await {
            if state != JobState::Running {
                state = JobState::Failed;
            }
            error.get_or_insert_with(|| StageError::from(unwritten).note());
        }
        JobOutcome {
            id: self.record.id,
            state,
            error,
            held: held.filter(|_| state == JobState::Running),
            documents,
            policy,
        }
    }

    /// Takes up a job that the ledger knows: it keeps the time it was made, and its events go on behind the last.
    async fn go_on(&mut self) -> Result<(), StorageError> {
        let ledger = &*self.host.ports.ledger;
        let Some(past) = Past::of(ledger, &self.spec.tenant, &self.record.id).await? else {
            return Ok(());
        };
        let made = past.record.created_millis;
        self.record.created_millis = made;
        let (seq, at) = past.last.map_or((0, 0), |event| (event.seq, event.at_millis));
        // The clock on the wall may have been set back; that of the log does not go back.
        let said = ledger.last_said(&self.spec.tenant, &self.record.id).await?;
        self.log
            .go_on(seq, said, now_millis().saturating_sub(made).max(at));
        Ok(())
    }

    async fn work(&self, observer: Observer) -> Worked {
        let (tenant, id) = (&self.spec.tenant, self.record.id);
        let ports = &self.host.ports;
        // A decision is waited for, and batches of its texts have no company to wait for.
        let account = Account {
            tenant: tenant.clone(),
            lane: Lane::Interactive,
            linger: Duration::ZERO,
            weight: self.spec.weight,
        };
        let model_requests = Arc::new(ModelRequests::default());
        let capabilities = JobCapabilities::new(
            ports,
            account.clone(),
            Arc::clone(&self.log),
            Arc::clone(&model_requests),
        );
        let request = PolicyRequest {
            tenant,
            job: id,
            pipeline: &self.spec.pipeline,
            capabilities: Arc::clone(&capabilities) as _,
        };
        // Opening waits for compilation and for instances, which may take as long as other jobs do.
        let opened = tokio::select! {
            biased;
            stopped = job::halted(&self.halt, &self.host.journal) => Err(stopped),
            opened = ports.policies.open(request) => opened.map_err(Unfinished::from),
        };
        let policy = match opened {
            Ok(policy) => policy,
            Err(unfinished) => return self.not_begun(unfinished).await,
        };
        let job = Arc::new(Job {
            host: Arc::clone(&self.host),
            tenant: tenant.clone(),
            id,
            pipeline: Arc::clone(&self.spec.pipeline),
            force: self.spec.force,
            filing: self.spec.filing.clone(),
            summarize: self.spec.summarize,
            account,
            lane: self.spec.lane,
            policy,
            log: Arc::clone(&self.log),
            halt: self.halt.clone(),
            capabilities,
            spent: Arc::clone(&self.spent),
            model_requests,
            held: OnceLock::new(),
        });
        Worked {
            documents: job.observed(observer, &self.spec.documents).await,
            held: job.held.get().copied(),
            error: self.halt.failure(),
            policy: job.policy.tally(),
        }
    }

    /// The end of a job whose documents have not been begun.
    async fn not_begun(&self, unfinished: Unfinished) -> Worked {
        let mut documents = Vec::with_capacity(self.spec.documents.len());
        for spec in &self.spec.documents {
            let outcome = match &unfinished {
                Unfinished::Failed(error) => refuse(&self.log, spec, error).await,
                Unfinished::Cancelled => {
                    let name = spec.name.clone();
                    let what = EventKind::DocumentCancelled { name, done: 0 };
                    self.log.say(None, what).await;
                    outcome(spec, DocumentEnd::Cancelled { done: 0 })
                }
                Unfinished::Suspended => outcome(spec, DocumentEnd::Suspended { done: 0 }),
            };
            documents.push(outcome);
        }
        Worked {
            documents,
            error: match unfinished {
                Unfinished::Failed(error) => Some(error),
                Unfinished::Cancelled | Unfinished::Suspended => None,
            },
            held: None,
            policy: PolicyTally::default(),
        }
    }
}

/// What came of a job's documents.
struct Worked {
    documents: Vec<DocumentOutcome>,
    held: Option<QuotaExhausted>,
    /// Why the job as a whole has failed, if it has.
    error: Option<ErrorNote>,
    policy: PolicyTally,
}

impl Worked {
    fn failed(documents: Vec<DocumentOutcome>, error: ErrorNote) -> Self {
        Self {
            documents,
            held: None,
            error: Some(error),
            policy: PolicyTally::default(),
        }
    }
}

/// The end of a document that was not even begun, or whose task has died.
async fn refuse(log: &EventLog, spec: &DocumentSpec, error: &ErrorNote) -> DocumentOutcome {
    let what = EventKind::DocumentFailed {
        name: spec.name.clone(),
        error: error.clone(),
        done: 0,
    };
    log.say(None, what).await;
    let end = DocumentEnd::Failed {
        error: error.clone(),
        done: 0,
    };
    outcome(spec, end)
}

/// What came of a document that was not opened.
fn outcome(spec: &DocumentSpec, end: DocumentEnd) -> DocumentOutcome {
    DocumentOutcome {
        name: spec.name.clone(),
        document: None,
        end,
    }
}

impl Job {
    /// Runs the documents while the observer shows their events to the progress component.
    async fn observed(self: &Arc<Self>, observer: Observer, specs: &[DocumentSpec]) -> Vec<DocumentOutcome> {
        let mut observing = JoinSet::new();
        let observer = observer.run(Arc::clone(&self.log), Arc::clone(&self.policy), self.halt.clone());
        observing.spawn(observer.in_current_span());
        let outcomes = {
            let mut documents = std::pin::pin!(self.documents(specs));
            tokio::select! {
                outcomes = &mut documents => outcomes,
                never = self.report_waits() => match never {},
                // It ends by itself only after it was asked to.
                Some(_) = observing.join_next() => {
                    let message = "the progress observer died: this is a fault of the host, see its log";
                    self.halt.fail(note(STAGE_DIED, message));
                    documents.await
                }
            }
        };
        self.log.end_observation().await;
        while observing.join_next().await.is_some() {}
        outcomes
    }

    /// Reports what requests to language models wait for, as long as the job runs.
    async fn report_waits(&self) -> Infallible {
        match &self.host.ports.language_model {
            Some(model) => self.model_requests.report_waits(&**model, &self.log).await,
            None => std::future::pending().await,
        }
    }

    /// Runs the documents, several at a time.
    async fn documents(self: &Arc<Self>, specs: &[DocumentSpec]) -> Vec<DocumentOutcome> {
        // Stopped before the sizes are known, the documents end in any order.
        let sized = self.unless_halted(Lineup::of(specs.to_vec())).await;
        let mut lineup = sized.unwrap_or_else(|_| Lineup::as_given(specs.to_vec()));
        let slots = self.host.config.documents.max(1);
        let mut running: JoinSet<DocumentOutcome> = JoinSet::new();
        let mut places: HashMap<Id, usize> = HashMap::new();
        let mut large: Option<Id> = None;
        let mut outcomes = vec![None; specs.len()];
        loop {
            while running.len() < slots && self.held.get().is_none() {
                let take_large = slots > 1 && large.is_none() && !running.is_empty();
                let Some((place, spec)) = lineup.next(take_large) else {
                    break;
                };
                let job = Arc::clone(self);
                let span = spans::document(&spec.name);
                let ingest = async move { document::ingest(&job, &spec).await };
                let task = running.spawn(ingest.instrument(span).in_current_span());
                if take_large {
                    large = Some(task.id());
                }
                places.insert(task.id(), place);
            }
            let Some(ended) = running.join_next_with_id().await else {
                break;
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            large.take_if(|large| *large == id);
            let Some(place) = places.remove(&id) else { continue };
            let outcome = match (ended, specs.get(place)) {
                (Ok((_, outcome)), _) => Some(outcome),
                (Err(died), Some(spec)) => {
                    tracing::error!(%died, name = spec.name, "a document's task died");
                    let message = "the document's task died: this is a fault of the host, see its log";
                    Some(refuse(&self.log, spec, &note(STAGE_DIED, message)).await)
                }
                (Err(_), None) => None,
            };
            if let Some(slot) = outcomes.get_mut(place) {
                *slot = outcome;
            }
        }
        // Documents that were not begun because the job is held go on with it.
        let not_begun = |spec: &DocumentSpec| DocumentOutcome {
            name: spec.name.clone(),
            document: None,
            end: DocumentEnd::Suspended { done: 0 },
        };
        let held = self.held.get().is_some();
        let outcomes = outcomes.into_iter().zip(specs);
        outcomes
            .filter_map(|(outcome, spec)| outcome.or_else(|| held.then(|| not_begun(spec))))
            .collect()
    }
}
