//! Runs the documents of a job.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument as _;
use weir_core::event::{ErrorInfo, EventKind};

use crate::document_ingestion;
use crate::error::{STAGE_DIED_KIND, build_error_info};
use crate::event_log::{EventLog, ProgressObserverQueue};
use crate::job_and_document_context::JobContext;
use crate::job_outcome::{DocumentEndState, DocumentOutcome};
use crate::job_spec::DocumentSpec;
use crate::progress_observer::run_progress_observer;
use crate::trace_spans;

impl JobContext {
    /// Runs the documents while the observer calls the progress component with their events.
    pub(crate) async fn run_documents_with_observer(
        self: &Arc<Self>,
        observer_queue: ProgressObserverQueue,
        specs: &[DocumentSpec],
    ) -> Vec<DocumentOutcome> {
        let mut observing = JoinSet::new();
        let observer = run_progress_observer(
            observer_queue,
            Arc::clone(&self.log),
            Arc::clone(&self.policy),
            self.stop_signal.clone(),
        );
        observing.spawn(observer.in_current_span());
        let outcomes = {
            let mut documents = std::pin::pin!(self.run_documents(specs));
            tokio::select! {
                outcomes = &mut documents => outcomes,
                never = self.report_waits_for_failing_models() => match never {},
                // Without a request to end, it ends only by a panic.
                Some(_) = observing.join_next() => {
                    let message = "the progress observer panicked: this is a fault of the host, see its log";
                    self.stop_signal.signal_failure(build_error_info(STAGE_DIED_KIND, message));
                    documents.await
                }
            }
        };
        self.log.stop_observer().await;
        while observing.join_next().await.is_some() {}
        outcomes
    }

    /// Reports when requests wait for failing language models, as long as the job runs.
    async fn report_waits_for_failing_models(&self) -> Infallible {
        match &self.engine.ports.language_model {
            Some(model) => {
                self.model_requests
                    .report_waits_for_failing_providers(&**model, &self.log)
                    .await
            }
            None => std::future::pending().await,
        }
    }

    /// Runs the documents, several at a time. One of them is the largest that is left, the others are the smallest.
    async fn run_documents(self: &Arc<Self>, specs: &[DocumentSpec]) -> Vec<DocumentOutcome> {
        // A job that is stopped before the sizes are known ends its documents in any order.
        let sized = self
            .run_unless_stopped(DocumentQueue::new_sorted_by_file_size(specs.to_vec()))
            .await;
        let mut queue = sized.unwrap_or_else(|_| DocumentQueue::new_in_job_order(specs.to_vec()));
        let slots = self.engine.config.max_active_documents.max(1);
        let mut running: JoinSet<DocumentOutcome> = JoinSet::new();
        let mut indexes: HashMap<Id, usize> = HashMap::new();
        let mut large: Option<Id> = None;
        let mut outcomes = vec![None; specs.len()];
        loop {
            while running.len() < slots && self.exhausted_quota.get().is_none() {
                let take_large = slots > 1 && large.is_none() && !running.is_empty();
                let Some((index, spec)) = queue.take_smallest_or_largest(take_large) else {
                    break;
                };
                let job = Arc::clone(self);
                let span = trace_spans::document_span(&spec.name);
                let ingest = async move { document_ingestion::ingest_document(&job, &spec).await };
                let task = running.spawn(ingest.instrument(span).in_current_span());
                if take_large {
                    large = Some(task.id());
                }
                indexes.insert(task.id(), index);
            }
            let Some(ended) = running.join_next_with_id().await else {
                break;
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            large.take_if(|large| *large == id);
            let Some(index) = indexes.remove(&id) else {
                continue;
            };
            let outcome = match (ended, specs.get(index)) {
                (Ok((_, outcome)), _) => Some(outcome),
                (Err(join_error), Some(spec)) => {
                    tracing::error!(%join_error, name = spec.name, "a document's task panicked");
                    let message = "the document's task panicked: this is a fault of the host, see its log";
                    Some(
                        report_unstarted_document_failure(
                            &self.log,
                            spec,
                            &build_error_info(STAGE_DIED_KIND, message),
                        )
                        .await,
                    )
                }
                (Err(_), None) => None,
            };
            if let Some(slot) = outcomes.get_mut(index) {
                *slot = outcome;
            }
        }
        // Documents that were not started because the job is held are processed when it resumes.
        let unstarted = |spec: &DocumentSpec| DocumentOutcome {
            name: spec.name.clone(),
            document: None,
            end: DocumentEndState::Suspended { done: 0 },
        };
        let held = self.exhausted_quota.get().is_some();
        let outcomes = outcomes.into_iter().zip(specs);
        outcomes
            .filter_map(|(outcome, spec)| outcome.or_else(|| held.then(|| unstarted(spec))))
            .collect()
    }
}

/// Reports the failure of a document that was not started, or whose task has panicked.
pub(crate) async fn report_unstarted_document_failure(
    log: &EventLog,
    spec: &DocumentSpec,
    error: &ErrorInfo,
) -> DocumentOutcome {
    let event = EventKind::DocumentFailed {
        name: spec.name.clone(),
        error: error.clone(),
        done: 0,
    };
    log.write_event(None, event).await;
    let end = DocumentEndState::Failed {
        error: error.clone(),
        done: 0,
    };
    unopened_document_outcome(spec, end)
}

/// Builds the outcome of a document that was not opened.
pub(crate) fn unopened_document_outcome(spec: &DocumentSpec, end: DocumentEndState) -> DocumentOutcome {
    DocumentOutcome {
        name: spec.name.clone(),
        document: None,
        end,
    }
}

/// The documents of a job that wait to be started, sorted by file size.
///
/// Small files come first. But if several documents are processed at a time, one of them is always the largest that is left. So
/// large files neither wait for all others nor delay the end of the job.
pub(crate) struct DocumentQueue {
    /// Sorted by size. The number is the index of the document in the job.
    waiting: VecDeque<(usize, DocumentSpec)>,
}

impl DocumentQueue {
    /// Creates a queue that is sorted by file size.
    pub(crate) async fn new_sorted_by_file_size(specs: Vec<DocumentSpec>) -> Self {
        let mut sized = Vec::with_capacity(specs.len());
        for (index, spec) in specs.into_iter().enumerate() {
            sized.push((spec.source.size_bytes().await, index, spec));
        }
        sized.sort_by_key(|(bytes, index, _)| (*bytes, *index));
        Self {
            waiting: sized.into_iter().map(|(_, index, spec)| (index, spec)).collect(),
        }
    }

    /// Creates a queue in the order of the job.
    pub(crate) fn new_in_job_order(specs: Vec<DocumentSpec>) -> Self {
        Self {
            waiting: specs.into_iter().enumerate().collect(),
        }
    }

    /// Removes the smallest or the largest document, and returns it with its index in the job.
    pub(crate) fn take_smallest_or_largest(&mut self, largest: bool) -> Option<(usize, DocumentSpec)> {
        if largest {
            self.waiting.pop_back()
        } else {
            self.waiting.pop_front()
        }
    }
}
