//! How far a job has come, from its events.

use weir_core::decision::{QueueState, StageWork};
use weir_core::event::{ErrorNote, Event, EventKind, FailedPage};
use weir_core::language::FailingProvider;
use weir_core::order::OrderedFile;
use weir_core::{DocumentId, Stage};

/// Failed pages of a document that are kept; all are counted.
const FAILURES: usize = 20;

/// Where a document stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DocumentState {
    /// Waiting for its turn.
    #[default]
    Waiting,
    /// In work.
    Running,
    /// Every page has ended, well or not.
    Done,
    /// It could not be done.
    Failed,
    /// Stopped on request.
    Cancelled,
}

impl DocumentState {
    pub(crate) const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A document as its job's events tell of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DocumentProgress {
    pub(crate) name: String,
    pub(crate) document: Option<DocumentId>,
    pub(crate) state: DocumentState,
    /// Pages asked for; unknown before the document was opened.
    pub(crate) pages: Option<u32>,
    /// Pages done, by this job or an earlier one.
    pub(crate) done: u32,
    /// Pages that this job has made searchable, and once it is done all that are.
    pub(crate) searchable: u32,
    pub(crate) failed: u32,
    /// The first of the failed pages.
    pub(crate) failures: Vec<FailedPage>,
    /// What the progress component said last.
    pub(crate) said: Option<Said>,
    pub(crate) error: Option<ErrorNote>,
}

/// A progress component's words.
#[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Said {
    /// 0 to 100.
    percent: f32,
    /// For people.
    message: String,
    /// Seconds left, if that can be told.
    seconds_left: Option<u32>,
}

/// The queue before a stage, as it was whenever a batch of pages had been drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Looks {
    pub(crate) count: u32,
    pub(crate) empty: u32,
    pub(crate) full: u32,
}

/// What a job's events add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Progress {
    /// Number of the last event.
    pub(crate) seq: u64,
    /// When the first and the last happened, in milliseconds since the job was made.
    pub(crate) began_millis: Option<u64>,
    pub(crate) at_millis: u64,
    /// When the host began with it, the last time that it did.
    pub(crate) taken_up_millis: u64,
    pub(crate) ended: bool,
    /// Failing language models that its requests wait for.
    pub(crate) waits_for: Vec<FailingProvider>,
    pub(crate) documents: Vec<DocumentProgress>,
    pub(crate) looks: [Looks; Stage::ALL.len()],
    /// What the stages did for it, once it has ended.
    pub(crate) work: Vec<StageWork>,
}

impl Progress {
    /// Takes the next event.
    pub(crate) fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        if self.began_millis.is_none() {
            (self.began_millis, self.taken_up_millis) = (Some(event.at_millis), event.at_millis);
        }
        self.at_millis = event.at_millis;
        let document = event.document;
        match &event.what {
            EventKind::DocumentStarted {
                name,
                pages,
                already_done,
            } => {
                // Once more after a restart: what was done until then is in `already_done` and was counted.
                if let Some(seen) = self.open(document) {
                    seen.state = DocumentState::Running;
                    self.taken_up_millis = event.at_millis;
                    // Should requests still wait, an event says so again.
                    self.waits_for.clear();
                    return;
                }
                self.documents.push(DocumentProgress {
                    name: name.clone(),
                    document,
                    state: DocumentState::Running,
                    pages: Some(*pages),
                    done: *already_done,
                    ..DocumentProgress::default()
                });
            }
            EventKind::BatchRasterized { queues, .. } => self.look(queues),
            EventKind::PageDone { searchable, .. } => {
                if let Some(seen) = self.open(document) {
                    seen.done = (seen.done + 1).min(seen.pages.unwrap_or(u32::MAX));
                    seen.searchable += u32::from(*searchable);
                }
            }
            EventKind::PageFailed { page, error, .. } => {
                if let Some(seen) = self.open(document) {
                    seen.failed += 1;
                    if seen.failures.len() < FAILURES {
                        let (page, error) = (*page, error.clone());
                        seen.failures.push(FailedPage { page, error });
                    }
                }
            }
            EventKind::Progress {
                percent,
                message,
                seconds_left,
            } => {
                if let Some(seen) = self.open(document) {
                    seen.said = Some(Said {
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
                let seen = self.ending(document, name);
                seen.state = DocumentState::Done;
                seen.pages = Some(*pages);
                seen.failed = u32::try_from(failed.len()).unwrap_or(u32::MAX);
                seen.done = pages.saturating_sub(seen.failed);
                seen.searchable = *searchable;
                seen.failures = failed.iter().take(FAILURES).cloned().collect();
            }
            EventKind::DocumentFailed { name, error, done } => {
                let seen = self.ending(document, name);
                seen.state = DocumentState::Failed;
                seen.done = *done;
                seen.error = Some(error.clone());
            }
            EventKind::DocumentCancelled { name, done } => {
                let seen = self.ending(document, name);
                seen.state = DocumentState::Cancelled;
                seen.done = *done;
            }
            EventKind::ModelWaitStarted { providers } => self.waits_for.clone_from(providers),
            EventKind::ModelWaitEnded {} => self.waits_for.clear(),
            EventKind::JobEnded { stages, .. } => {
                self.ended = true;
                self.waits_for.clear();
                self.work.clone_from(stages);
            }
            EventKind::PageRetried { .. }
            | EventKind::JobHeld { .. }
            | EventKind::PolicyFailed { .. }
            | EventKind::SectionSummarized { .. }
            | EventKind::SectionFailed { .. }
            | EventKind::DocumentSummarized { .. } => {}
        }
    }

    /// The document that is in work under this id. The same file twice in one job is worked on once at a time.
    fn open(&mut self, document: Option<DocumentId>) -> Option<&mut DocumentProgress> {
        let open = |seen: &&mut DocumentProgress| seen.document == document && !seen.state.is_ended();
        self.documents
            .iter_mut()
            .rev()
            .find(open)
            .filter(|_| document.is_some())
    }

    fn ending(&mut self, document: Option<DocumentId>, name: &str) -> &mut DocumentProgress {
        let known = |seen: &DocumentProgress| {
            document.is_some() && seen.document == document && !seen.state.is_ended()
        };
        let at = self.documents.iter().rposition(known).unwrap_or_else(|| {
            self.documents.push(DocumentProgress {
                name: name.to_owned(),
                document,
                ..DocumentProgress::default()
            });
            self.documents.len() - 1
        });
        // It is in range: found, or just put in.
        self.documents.get_mut(at).unwrap_or_else(|| unreachable!())
    }

    fn look(&mut self, queues: &[QueueState]) {
        for queue in queues {
            if let Some(looks) = self.looks.get_mut(queue.stage as usize) {
                looks.count += 1;
                looks.empty += u32::from(queue.depth == 0);
                looks.full += u32::from(queue.depth >= queue.capacity);
            }
        }
    }

    /// What is known of each file of the order, in its order; `None` for a file that no event has told of.
    pub(crate) fn of_files(&self, files: &[OrderedFile]) -> Vec<Option<&DocumentProgress>> {
        let mut taken = vec![false; self.documents.len()];
        let mut find = |file: &OrderedFile| {
            let is_it = |seen: &DocumentProgress| {
                seen.name == file.name && seen.document.is_none_or(|document| document == file.document)
            };
            let mut free = self
                .documents
                .iter()
                .zip(&mut taken)
                .filter(|(seen, taken)| !**taken && is_it(seen));
            free.next().map(|(seen, taken)| {
                *taken = true;
                seen
            })
        };
        files.iter().map(&mut find).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::JobId;
    use weir_core::ledger::JobState;

    fn progress(events: &[(Option<DocumentId>, EventKind)]) -> Progress {
        let mut progress = Progress::default();
        for (seq, (document, what)) in (1..).zip(events) {
            progress.apply(&Event {
                seq,
                job: JobId::new(),
                document: *document,
                at_millis: seq * 10,
                what: what.clone(),
            });
        }
        progress
    }

    fn started(name: &str, already_done: u32) -> EventKind {
        EventKind::DocumentStarted {
            name: name.into(),
            pages: 10,
            already_done,
        }
    }

    fn done(page: u32) -> EventKind {
        EventKind::PageDone {
            page,
            searchable: page % 2 == 1,
            passages: 1,
        }
    }

    fn note() -> ErrorNote {
        ErrorNote {
            kind: "k".into(),
            message: "m".into(),
        }
    }

    fn file(name: &str, content: &[u8]) -> OrderedFile {
        OrderedFile {
            name: name.into(),
            document: DocumentId::of(content),
            bytes: 1,
            password: None,
        }
    }

    #[test]
    fn pages_add_up_also_over_a_restart() {
        let a = Some(DocumentId::of(b"a"));
        let failed = EventKind::PageFailed {
            page: 3,
            stage: Stage::Read,
            error: note(),
        };
        let events = [
            (a, started("a", 4)),
            (a, done(1)),
            (a, failed),
            (a, started("a", 5)),
            (a, done(5)),
        ];
        let seen = progress(&events);
        let of_files = seen.of_files(&[file("a", b"a"), file("b", b"b")]);
        let first = of_files[0].unwrap();
        assert_eq!((first.state, first.pages), (DocumentState::Running, Some(10)));
        assert_eq!((first.done, first.searchable, first.failed), (6, 2, 1));
        assert_eq!(first.failures[0].page, 3);
        assert!(of_files[1].is_none());
        assert_eq!(
            (seen.seq, seen.began_millis, seen.at_millis, seen.ended),
            (5, Some(10), 50, false)
        );
        assert_eq!(seen.taken_up_millis, 40);
    }

    #[test]
    fn a_documents_end_is_the_last_word() {
        let (a, b) = (Some(DocumentId::of(b"a")), Some(DocumentId::of(b"b")));
        let events = [
            (a, started("a", 0)),
            (a, done(1)),
            (
                a,
                EventKind::DocumentDone {
                    name: "a".into(),
                    pages: 10,
                    searchable: 7,
                    skipped: 0,
                    failed: vec![FailedPage {
                        page: 2,
                        error: note(),
                    }],
                },
            ),
            (
                None,
                EventKind::DocumentFailed {
                    name: "broken".into(),
                    error: note(),
                    done: 0,
                },
            ),
            (b, started("b", 0)),
            (
                b,
                EventKind::DocumentCancelled {
                    name: "b".into(),
                    done: 3,
                },
            ),
            (
                None,
                EventKind::JobEnded {
                    state: JobState::Failed,
                    stages: Vec::new(),
                },
            ),
        ];
        let seen = progress(&events);
        let files = [file("a", b"a"), file("b", b"b"), file("broken", b"c")];
        let of_files: Vec<_> = seen.of_files(&files).into_iter().map(Option::unwrap).collect();
        let states: Vec<_> = of_files.iter().map(|d| (d.state, d.done, d.searchable)).collect();
        assert_eq!(
            states,
            [
                (DocumentState::Done, 9, 7),
                (DocumentState::Cancelled, 3, 0),
                (DocumentState::Failed, 0, 0),
            ]
        );
        assert!(of_files[2].error.is_some() && seen.ended);
    }

    #[test]
    fn the_same_file_twice_is_two_documents() {
        let a = Some(DocumentId::of(b"a"));
        let end = EventKind::DocumentDone {
            name: "a".into(),
            pages: 10,
            searchable: 10,
            skipped: 0,
            failed: vec![],
        };
        let seen = progress(&[
            (a, started("a", 0)),
            (a, end),
            (a, started("a", 10)),
            (a, done(1)),
        ]);
        let of_files = seen.of_files(&[file("a", b"a"), file("a", b"a")]);
        let states: Vec<_> = of_files.iter().map(|d| d.map(|d| (d.state, d.done))).collect();
        assert_eq!(
            states,
            [
                Some((DocumentState::Done, 10)),
                Some((DocumentState::Running, 10))
            ]
        );
    }
}
