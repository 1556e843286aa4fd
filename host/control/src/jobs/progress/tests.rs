//! Tests of the progress that follows from events.

use super::*;
use weir_core::JobId;
use weir_core::ledger::JobState;

fn apply_events(events: &[(Option<DocumentId>, EventKind)]) -> JobProgress {
    let mut progress = JobProgress::default();
    for (seq, (document, what)) in (1..).zip(events) {
        progress.apply_event(&Event {
            seq,
            job: JobId::new(),
            document: *document,
            since_job_created_millis: seq * 10,
            kind: what.clone(),
        });
    }
    progress
}

fn document_started(name: &str, already_done: u32) -> EventKind {
    EventKind::DocumentStarted {
        name: name.into(),
        pages: 10,
        already_done,
    }
}

fn page_done(page: u32) -> EventKind {
    EventKind::PageDone {
        page,
        searchable: page % 2 == 1,
        passages: 1,
    }
}

fn sample_error() -> ErrorInfo {
    ErrorInfo {
        kind: "k".into(),
        message: "m".into(),
    }
}

fn requested_file(name: &str, content: &[u8]) -> RequestedFile {
    RequestedFile {
        name: name.into(),
        document: DocumentId::from_content(content),
        bytes: 1,
        password: None,
    }
}

#[test]
fn pages_add_up_across_a_restart() {
    let a = Some(DocumentId::from_content(b"a"));
    let failed = EventKind::PageFailed {
        page: 3,
        stage: Stage::Read,
        error: sample_error(),
    };
    let events = [
        (a, document_started("a", 4)),
        (a, page_done(1)),
        (a, failed),
        (a, document_started("a", 5)),
        (a, page_done(5)),
    ];
    let seen = apply_events(&events);
    let of_files = seen.find_progress_of_files(&[requested_file("a", b"a"), requested_file("b", b"b")]);
    let first = of_files[0].unwrap();
    assert_eq!((first.state, first.pages), (DocumentState::Running, Some(10)));
    assert_eq!(
        (first.done_pages, first.searchable_pages, first.failed_pages),
        (6, 2, 1)
    );
    assert_eq!(first.failures[0].page, 3);
    assert!(of_files[1].is_none());
    assert_eq!(
        (
            seen.last_seq,
            seen.first_event_millis,
            seen.last_event_millis,
            seen.ended
        ),
        (5, Some(10), 50, false)
    );
    assert_eq!(seen.resumed_millis, 40);
}

#[test]
fn end_event_of_a_document_sets_its_final_counts() {
    let (a, b) = (
        Some(DocumentId::from_content(b"a")),
        Some(DocumentId::from_content(b"b")),
    );
    let events = [
        (a, document_started("a", 0)),
        (a, page_done(1)),
        (
            a,
            EventKind::DocumentDone {
                name: "a".into(),
                pages: 10,
                searchable: 7,
                skipped: 0,
                failed: vec![FailedPage {
                    page: 2,
                    error: sample_error(),
                }],
            },
        ),
        (
            None,
            EventKind::DocumentFailed {
                name: "broken".into(),
                error: sample_error(),
                done: 0,
            },
        ),
        (b, document_started("b", 0)),
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
    let seen = apply_events(&events);
    let files = [
        requested_file("a", b"a"),
        requested_file("b", b"b"),
        requested_file("broken", b"c"),
    ];
    let of_files: Vec<_> = seen
        .find_progress_of_files(&files)
        .into_iter()
        .map(Option::unwrap)
        .collect();
    let states: Vec<_> = of_files
        .iter()
        .map(|d| (d.state, d.done_pages, d.searchable_pages))
        .collect();
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
    let a = Some(DocumentId::from_content(b"a"));
    let end = EventKind::DocumentDone {
        name: "a".into(),
        pages: 10,
        searchable: 10,
        skipped: 0,
        failed: vec![],
    };
    let seen = apply_events(&[
        (a, document_started("a", 0)),
        (a, end),
        (a, document_started("a", 10)),
        (a, page_done(1)),
    ]);
    let of_files = seen.find_progress_of_files(&[requested_file("a", b"a"), requested_file("a", b"a")]);
    let states: Vec<_> = of_files
        .iter()
        .map(|d| d.map(|d| (d.state, d.done_pages)))
        .collect();
    assert_eq!(
        states,
        [
            Some((DocumentState::Done, 10)),
            Some((DocumentState::Running, 10))
        ]
    );
}
