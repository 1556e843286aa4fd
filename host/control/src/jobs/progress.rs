//! The progress of a job and its documents, computed from the events of the job.

use weir_core::decision::{QueueState, StageTotals};
use weir_core::event::{ErrorInfo, Event, EventKind, FailedPage};
use weir_core::job_request::RequestedFile;
use weir_core::llm::ProviderFailureInfo;
use weir_core::{DocumentId, Stage};

/// The maximum number of failed pages that are listed for a document. All of them are counted.
const MAX_LISTED_FAILURES: usize = 20;

/// The state of a document in a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DocumentState {
    /// It has not been started.
    #[default]
    Waiting,
    /// It is being processed.
    Running,
    /// Every page was finished or failed.
    Done,
    /// The document failed.
    Failed,
    /// The document was canceled.
    Cancelled,
}

impl DocumentState {
    /// Whether the document has ended.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// The progress of a document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DocumentProgress {
    /// The name of its file.
    pub name: String,
    /// Its id; `None` before it was opened.
    pub document_id: Option<DocumentId>,
    /// Its state.
    pub state: DocumentState,
    /// The number of requested pages; `None` before the document was opened.
    pub pages: Option<u32>,
    /// The number of pages finished by this job or an earlier one.
    pub done_pages: u32,
    /// The number of pages that this job has made searchable. Once the document is done, the number of all searchable pages.
    pub searchable_pages: u32,
    /// The number of failed pages.
    pub failed_pages: u32,
    /// The first failed pages.
    pub failures: Vec<FailedPage>,
    /// The last update from the progress component.
    pub last_update: Option<ComponentProgressUpdate>,
    /// Why it failed, if it did.
    pub error: Option<ErrorInfo>,
}

/// A progress update that a progress component computed for the user.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentProgressUpdate {
    /// The progress in percent, from 0 to 100.
    pub percent: f32,
    /// A message for the user.
    pub message: String,
    /// The estimated remaining time in seconds; `None` if it is unknown.
    pub seconds_left: Option<u32>,
}

/// Samples of the queue in front of a stage, taken after each rasterized batch of pages.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QueueSampleCounts {
    /// The number of samples.
    pub count: u32,
    /// The number of samples in which the queue was empty.
    pub empty: u32,
    /// The number of samples in which the queue was full.
    pub full: u32,
}

/// The progress of a job up to its last event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobProgress {
    /// The number of the last event.
    pub last_seq: u64,
    /// The time of the first event, in milliseconds since the job was created.
    pub first_event_millis: Option<u64>,
    /// The time of the last event, in milliseconds since the job was created.
    pub last_event_millis: u64,
    /// When the job was last started or resumed, in milliseconds since it was created.
    pub resumed_millis: u64,
    /// Whether the job has ended.
    pub ended: bool,
    /// The failing providers of language models that its requests wait for.
    pub failing_providers: Vec<ProviderFailureInfo>,
    /// Its documents, in the order in which they were opened.
    pub documents: Vec<DocumentProgress>,
    /// The samples of the queue in front of each stage.
    pub queue_samples: [QueueSampleCounts; Stage::ALL.len()],
    /// The work of the stages for this job, once it has ended.
    pub stage_totals: Vec<StageTotals>,
}

impl JobProgress {
    /// Updates the progress with the next event.
    pub fn apply_event(&mut self, event: &Event) {
        self.last_seq = event.seq;
        if self.first_event_millis.is_none() {
            (self.first_event_millis, self.resumed_millis) = (
                Some(event.since_job_created_millis),
                event.since_job_created_millis,
            );
        }
        self.last_event_millis = event.since_job_created_millis;
        let document = event.document;
        match &event.kind {
            EventKind::DocumentStarted {
                name,
                pages,
                already_done,
            } => {
                // A restarted host sends this event again. The pages in `already_done` are already counted.
                if let Some(document_progress) = self.find_unended_document(document) {
                    document_progress.state = DocumentState::Running;
                    self.resumed_millis = event.since_job_created_millis;
                    // If requests still wait, another event reports it.
                    self.failing_providers.clear();
                    return;
                }
                self.documents.push(DocumentProgress {
                    name: name.clone(),
                    document_id: document,
                    state: DocumentState::Running,
                    pages: Some(*pages),
                    done_pages: *already_done,
                    ..DocumentProgress::default()
                });
            }
            EventKind::BatchRasterized { queues, .. } => self.count_queue_samples(queues),
            EventKind::PageDone { searchable, .. } => {
                if let Some(document_progress) = self.find_unended_document(document) {
                    document_progress.done_pages =
                        (document_progress.done_pages + 1).min(document_progress.pages.unwrap_or(u32::MAX));
                    document_progress.searchable_pages += u32::from(*searchable);
                }
            }
            EventKind::PageFailed { page, error, .. } => {
                if let Some(document_progress) = self.find_unended_document(document) {
                    document_progress.failed_pages += 1;
                    if document_progress.failures.len() < MAX_LISTED_FAILURES {
                        let (page, error) = (*page, error.clone());
                        document_progress.failures.push(FailedPage { page, error });
                    }
                }
            }
            EventKind::Progress {
                percent,
                message,
                seconds_left,
            } => {
                if let Some(document_progress) = self.find_unended_document(document) {
                    document_progress.last_update = Some(ComponentProgressUpdate {
                        percent: *percent,
                        message: message.clone(),
                        seconds_left: *seconds_left,
                    });
                }
            }
            EventKind::DocumentDone {
                name,
                pages,
                searchable,
                failed,
                ..
            } => {
                let document_progress = self.find_or_add_document(document, name);
                document_progress.state = DocumentState::Done;
                document_progress.pages = Some(*pages);
                document_progress.failed_pages = u32::try_from(failed.len()).unwrap_or(u32::MAX);
                document_progress.done_pages = pages.saturating_sub(document_progress.failed_pages);
                document_progress.searchable_pages = *searchable;
                document_progress.failures = failed.iter().take(MAX_LISTED_FAILURES).cloned().collect();
            }
            EventKind::DocumentFailed { name, error, done } => {
                let document_progress = self.find_or_add_document(document, name);
                document_progress.state = DocumentState::Failed;
                document_progress.done_pages = *done;
                document_progress.error = Some(error.clone());
            }
            EventKind::DocumentCancelled { name, done } => {
                let document_progress = self.find_or_add_document(document, name);
                document_progress.state = DocumentState::Cancelled;
                document_progress.done_pages = *done;
            }
            EventKind::ModelWaitStarted { providers } => self.failing_providers.clone_from(providers),
            EventKind::ModelWaitEnded {} => self.failing_providers.clear(),
            EventKind::JobEnded { stages, .. } => {
                self.ended = true;
                self.failing_providers.clear();
                self.stage_totals.clone_from(stages);
            }
            EventKind::PageRetried { .. }
            | EventKind::JobPausedByQuota { .. }
            | EventKind::PolicyFallback { .. }
            | EventKind::SectionSummarized { .. }
            | EventKind::SectionFailed { .. }
            | EventKind::DocumentSummarized { .. } => {}
        }
    }

    /// Returns the document with this id that has not ended. A job with the same file twice processes one of them at a time.
    fn find_unended_document(&mut self, document: Option<DocumentId>) -> Option<&mut DocumentProgress> {
        let open = |document_progress: &&mut DocumentProgress| {
            document_progress.document_id == document && !document_progress.state.is_ended()
        };
        self.documents
            .iter_mut()
            .rev()
            .find(open)
            .filter(|_| document.is_some())
    }

    fn find_or_add_document(&mut self, document: Option<DocumentId>, name: &str) -> &mut DocumentProgress {
        let known = |document_progress: &DocumentProgress| {
            document.is_some()
                && document_progress.document_id == document
                && !document_progress.state.is_ended()
        };
        let at = self.documents.iter().rposition(known).unwrap_or_else(|| {
            self.documents.push(DocumentProgress {
                name: name.to_owned(),
                document_id: document,
                ..DocumentProgress::default()
            });
            self.documents.len() - 1
        });
        // It is in range: it was found, or it was just added.
        self.documents.get_mut(at).unwrap_or_else(|| unreachable!())
    }

    fn count_queue_samples(&mut self, queues: &[QueueState]) {
        for queue in queues {
            if let Some(samples) = self.queue_samples.get_mut(queue.stage as usize) {
                samples.count += 1;
                samples.empty += u32::from(queue.depth == 0);
                samples.full += u32::from(queue.depth >= queue.capacity);
            }
        }
    }

    /// Returns the approximate number of bytes in memory.
    pub fn estimated_bytes(&self) -> usize {
        let error_bytes = |error: &ErrorInfo| error.kind.len() + error.message.len();
        let failure_bytes = |failed: &FailedPage| size_of::<FailedPage>() + error_bytes(&failed.error);
        let document_bytes = |document: &DocumentProgress| {
            let update = document.last_update.as_ref();
            size_of::<DocumentProgress>()
                + document.name.len()
                + document.failures.iter().map(failure_bytes).sum::<usize>()
                + update.map_or(0, |update| update.message.len())
                + document.error.as_ref().map_or(0, error_bytes)
        };
        let provider_bytes = |failing: &ProviderFailureInfo| {
            size_of::<ProviderFailureInfo>() + failing.provider.len() + error_bytes(&failing.error)
        };
        size_of::<Self>()
            + self.documents.iter().map(document_bytes).sum::<usize>()
            + self.failing_providers.iter().map(provider_bytes).sum::<usize>()
            + self.stage_totals.len() * size_of::<StageTotals>()
    }

    /// Returns the progress of each file of a job request, in the same order; `None` for a file without any event.
    pub fn find_progress_of_files(&self, files: &[RequestedFile]) -> Vec<Option<&DocumentProgress>> {
        let mut taken = vec![false; self.documents.len()];
        let mut find = |file: &RequestedFile| {
            let is_it = |document_progress: &DocumentProgress| {
                document_progress.name == file.name
                    && document_progress
                        .document_id
                        .is_none_or(|document| document == file.document)
            };
            let mut free = self
                .documents
                .iter()
                .zip(&mut taken)
                .filter(|(document_progress, taken)| !**taken && is_it(document_progress));
            free.next().map(|(document_progress, taken)| {
                *taken = true;
                document_progress
            })
        };
        files.iter().map(&mut find).collect()
    }
}

#[cfg(test)]
mod tests;
