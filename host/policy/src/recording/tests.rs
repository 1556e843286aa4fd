use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_conformance::{MemoryRecordingStore, RecordingStoreCall};

use super::frames::MAX_SESSION_BYTES;
use super::job_recorder::MAX_GROUP_FRAMES;
use super::recording_in_progress::RecordingInProgress;
use super::session_buffer::{SessionBuffer, SessionState};
use super::writer::WriterCommand;
use super::*;
use weir_core::decision::{PageRoute, PageToRoute, ReadingMethod};
use weir_core::manifest::ComponentLimits;
use weir_core::page::PageFacts;
use weir_core::recording::{MAX_APPEND_DELAY, RecordingSession, list_recordings};
use weir_core::{DocumentId, JobId, RevisionId, StorageError, TenantId};

fn session_header(job: JobId) -> SessionHeader {
    SessionHeader {
        tenant: TenantId::default_tenant(),
        job,
        pipeline: "p".into(),
        revision: RevisionId::from_content(b"r"),
        settings: [("dpi".to_owned(), "150".to_owned())].into(),
        components: vec![RecordedComponent {
            name: "routing".into(),
            digest: [7; 32],
        }],
        role_assignments: Vec::new(),
        granted_capabilities: Vec::new(),
        limits: ComponentLimits::default(),
    }
}

fn recorded_call(page: u32) -> RecordedCall {
    let facts = PageFacts {
        number: page,
        width: 612.0,
        height: 792.0,
        text_chars: 900,
        image_coverage: 0.25,
        readable: true,
    };
    let route = PageRoute {
        reading_method: ReadingMethod::TextLayer,
        embed: true,
        store: true,
        labels: vec![("kind".into(), "text".into())],
    };
    RecordedCall {
        component_index: 0,
        sequence: page,
        elapsed_micros: 1,
        responses: Vec::new(),
        decision: RecordedDecision::Page(PolicyFunctionCall {
            request: PageToRoute {
                document: DocumentId::from_content(b"d"),
                facts,
            },
            response: Ok(route),
        }),
    }
}

fn page_numbers(frames: &[RecordingFrame]) -> Vec<u32> {
    frames
        .iter()
        .filter_map(|frame| match frame {
            RecordingFrame::Call(call) => match &call.decision {
                RecordedDecision::Page(call) => Some(call.request.facts.number),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn start_writer(store: &Arc<MemoryRecordingStore>) -> RecordingWriter {
    RecordingWriter::start(Arc::clone(store) as _, Retention::default()).unwrap()
}

/// Returns the frames of each session of a job of the default tenant.
fn stored_sessions(store: &MemoryRecordingStore, job: &JobId) -> Vec<Vec<RecordingFrame>> {
    let sessions = store.sessions(&TenantId::default_tenant(), job);
    sessions
        .iter()
        .map(|bytes| decode_frames(bytes).unwrap())
        .collect()
}

/// Returns the frames of the only session of a job.
fn stored_frames(store: &MemoryRecordingStore, job: &JobId) -> Vec<RecordingFrame> {
    let mut sessions = stored_sessions(store, job);
    assert_eq!(sessions.len(), 1);
    sessions.pop().unwrap()
}

#[tokio::test]
async fn store_in_memory_passes_the_conformance_suite() {
    weir_conformance::check_recording_store(&MemoryRecordingStore::default()).await;
}

#[tokio::test]
async fn recorded_frames_are_read_back() {
    for interval in [Duration::ZERO, Duration::from_secs(3600)] {
        let store = Arc::new(MemoryRecordingStore::with_append_interval(interval));
        let job = JobId::new();
        let writer = start_writer(&store);
        let recorder = JobRecorder::new(&writer, session_header(job));
        for page in 1..=100 {
            recorder.push_call(recorded_call(page));
        }
        drop(recorder);
        drop(writer);
        let frames = stored_frames(&store, &job);
        assert_eq!(
            frames[0],
            RecordingFrame::SessionStarted(Box::new(session_header(job)))
        );
        assert_eq!(frames[1], RecordingFrame::Call(Box::new(recorded_call(1))));
        assert_eq!(page_numbers(&frames), (1..=100).collect::<Vec<_>>());
        assert_eq!(frames.last(), Some(&RecordingFrame::SessionEnded { calls: 100 }));
    }
}

/// Four threads record calls at the same time, and each fills two groups.
#[tokio::test]
async fn frame_groups_are_written_in_submission_order() {
    let store = Arc::new(MemoryRecordingStore::default());
    let writer = start_writer(&store);
    let jobs: Vec<JobId> = (0..100).map(|_| JobId::new()).collect();
    for job in &jobs {
        let recorder = JobRecorder::new(&writer, session_header(*job));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..2 * MAX_GROUP_FRAMES as u32).for_each(|page| recorder.push_call(recorded_call(page)))
                });
            }
        });
    }
    drop(writer);
    for job in jobs {
        let frames = stored_frames(&store, &job);
        let calls = 8 * MAX_GROUP_FRAMES as u64;
        assert!(
            matches!(frames.first(), Some(RecordingFrame::SessionStarted(_))),
            "the first frame is SessionStarted"
        );
        assert_eq!(frames.last(), Some(&RecordingFrame::SessionEnded { calls }));
        assert_eq!(frames.len() as u64, calls + 2);
    }
}

/// Waits until a job has this many recorded calls in its only session.
async fn wait_for_calls(store: &MemoryRecordingStore, job: &JobId, calls: usize) {
    let is_stored = || {
        let sessions = stored_sessions(store, job);
        sessions
            .first()
            .is_some_and(|frames| page_numbers(frames).len() == calls)
    };
    while !is_stored() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn start_of_a_session_is_stored_before_the_interval_has_passed() {
    let store = Arc::new(MemoryRecordingStore::with_append_interval(Duration::from_secs(
        3600,
    )));
    let job = JobId::new();
    let writer = start_writer(&store);
    let recorder = JobRecorder::new(&writer, session_header(job));
    recorder.push_call(recorded_call(1));
    wait_for_calls(&store, &job, 1).await;
    // More than a group, which waits for the interval, for a flush of its job or for the end of the session.
    for page in 2..=1 + u32::try_from(MAX_GROUP_FRAMES).unwrap() {
        recorder.push_call(recorded_call(page));
    }
    writer.flush(Some(JobId::new())).await;
    assert_eq!(page_numbers(&stored_frames(&store, &job)), [1]);
    writer.flush(Some(job)).await;
    assert_eq!(
        page_numbers(&stored_frames(&store, &job)).len(),
        1 + MAX_GROUP_FRAMES
    );
    drop(recorder);
    wait_for_calls(&store, &job, 1 + MAX_GROUP_FRAMES).await;
}

#[tokio::test]
async fn unavailable_store_gets_the_calls_later_and_a_failed_one_none() {
    for is_available_later in [true, false] {
        let store = Arc::new(MemoryRecordingStore::default());
        let job = JobId::new();
        let writer = start_writer(&store);
        let recorder = JobRecorder::new(&writer, session_header(job));
        recorder.push_call(recorded_call(1));
        writer.flush(None).await;
        store.fail_appends_with(Some(match is_available_later {
            true => StorageError::Unavailable {
                what: "the store".into(),
                reason: "it is stopped".into(),
            },
            false => StorageError::NoSpace {
                what: "the store".into(),
            },
        }));
        for page in 2..=1 + u32::try_from(MAX_GROUP_FRAMES).unwrap() {
            recorder.push_call(recorded_call(page));
        }
        writer.flush(None).await;
        store.fail_appends_with(None);
        drop(recorder);
        drop(writer);
        let frames = stored_frames(&store, &job);
        match is_available_later {
            true => {
                let calls = 1 + MAX_GROUP_FRAMES as u64;
                assert_eq!(frames.len() as u64, calls + 2);
                assert_eq!(frames.last(), Some(&RecordingFrame::SessionEnded { calls }));
            }
            false => assert_eq!((frames.len(), page_numbers(&frames)), (2, vec![1])),
        }
    }
}

#[tokio::test]
async fn a_full_recording_ends_with_a_stop_frame() {
    let store = MemoryRecordingStore::default();
    let job = JobId::new();
    let recording = Arc::new(RecordingInProgress::new(RecordingSession::start(
        TenantId::default_tenant(),
        job,
    )));
    let mut buffer = SessionBuffer::new(Arc::clone(&recording));
    let started = RecordingFrame::SessionStarted(Box::new(session_header(job)));
    // One frame that almost reaches the byte limit.
    let filler =
        RecordingFrame::RecordingStopped("x".repeat(usize::try_from(MAX_SESSION_BYTES).unwrap() - 1000));
    let call = RecordingFrame::Call(Box::new(recorded_call(1)));
    buffer.push_frames(&[started, filler, call.clone()], 0);
    assert_eq!(buffer.store_part(&store).await.0, SessionState::Open);
    assert!(!recording.is_closed());
    buffer.push_frames(&vec![call; 20], 0);
    assert!(recording.is_closed());
    assert_eq!(buffer.store_part(&store).await.0, SessionState::Closed);
    let frames = stored_frames(&store, &job);
    assert!(matches!(frames.last(), Some(RecordingFrame::RecordingStopped(why)) if why.contains("reached")));
    assert_eq!(frames.len(), 4);
}

#[tokio::test]
async fn a_resumed_job_has_another_session() {
    let store = Arc::new(MemoryRecordingStore::default());
    let job = JobId::new();
    for page in 1..=2 {
        let writer = start_writer(&store);
        JobRecorder::new(&writer, session_header(job)).push_call(recorded_call(page));
    }
    let sessions = stored_sessions(&store, &job);
    let pages: Vec<_> = sessions.iter().map(|frames| page_numbers(frames)).collect();
    assert_eq!(pages, [[1], [2]]);
}

#[tokio::test]
async fn a_job_without_calls_is_not_stored() {
    let store = Arc::new(MemoryRecordingStore::default());
    let writer = start_writer(&store);
    drop(JobRecorder::new(&writer, session_header(JobId::new())));
    drop(writer);
    assert_eq!(list_recordings(&*store).await.unwrap(), []);
}

#[tokio::test]
async fn removed_recording_does_not_come_back() {
    let store = Arc::new(MemoryRecordingStore::default());
    let writer = start_writer(&store);
    let [removed, other] = [JobId::new(), JobId::new()];
    let recorders = [removed, other].map(|job| {
        let recorder = JobRecorder::new(&writer, session_header(job));
        // More than a group, so that only some frames are stored.
        (0..=u32::try_from(MAX_GROUP_FRAMES).unwrap())
            .for_each(|page| recorder.push_call(recorded_call(page)));
        recorder
    });
    writer.flush(None).await;
    let is_stored = |job: &JobId| !stored_sessions(&store, job).is_empty();
    assert!(is_stored(&removed) && is_stored(&other));
    let tenant = TenantId::default_tenant();
    writer
        .remove_recordings(&tenant, Some(&[removed, JobId::new()]))
        .await
        .unwrap();
    // The recorders submit their remaining frames after the removal.
    drop(recorders);
    writer.flush(None).await;
    assert!(!is_stored(&removed));
    assert_eq!(
        page_numbers(&stored_frames(&store, &other)).len(),
        MAX_GROUP_FRAMES + 1
    );

    let unfinished_recorder = JobRecorder::new(&writer, session_header(JobId::new()));
    unfinished_recorder.push_call(recorded_call(1));
    writer
        .remove_recordings(&"b".parse().unwrap(), None)
        .await
        .unwrap();
    assert!(is_stored(&other));
    writer.remove_recordings(&tenant, None).await.unwrap();
    drop(unfinished_recorder);
    writer.flush(None).await;
    assert_eq!(list_recordings(&*store).await.unwrap(), []);
    // A new tenant of the same name is recorded again.
    let job = JobId::new();
    JobRecorder::new(&writer, session_header(job)).push_call(recorded_call(1));
    writer.flush(None).await;
    assert!(is_stored(&job));
}

fn start_recording(job: JobId) -> Arc<RecordingInProgress> {
    let session = RecordingSession::start(TenantId::default_tenant(), job);
    Arc::new(RecordingInProgress::new(session))
}

#[tokio::test]
async fn recording_ends_with_a_note_if_a_call_cannot_be_encoded() {
    let (store, job) = (MemoryRecordingStore::default(), JobId::new());
    let recording = start_recording(job);
    let mut buffer = SessionBuffer::new(Arc::clone(&recording));
    let started = RecordingFrame::SessionStarted(Box::new(session_header(job)));
    buffer.push_frames(&[started], 0);
    buffer.push_encoded_frames(Err(io::Error::other("too long")), false, 0);
    assert!(recording.is_closed());
    assert_eq!(buffer.store_part(&store).await.0, SessionState::Closed);
    let frames = stored_frames(&store, &job);
    assert!(matches!(frames.last(), Some(RecordingFrame::RecordingStopped(why)) if why.contains("too long")));
    assert_eq!(frames.len(), 2);
}

/// The store may have forgotten a removal of the session.
#[tokio::test]
async fn frames_that_have_waited_too_long_are_not_stored() {
    let (store, job) = (MemoryRecordingStore::default(), JobId::new());
    let recording = start_recording(job);
    let mut buffer = SessionBuffer::new(Arc::clone(&recording));
    buffer.push_frames(&[RecordingFrame::Call(Box::new(recorded_call(1)))], 0);
    buffer.waiting_since = Instant::now() - MAX_APPEND_DELAY - Duration::from_secs(1);
    // More frames do not renew the others.
    buffer.push_frames(&[RecordingFrame::Call(Box::new(recorded_call(2)))], 0);
    assert_eq!(buffer.store_part(&store).await.0, SessionState::Closed);
    assert!(recording.is_closed());
    assert_eq!(list_recordings(&store).await.unwrap(), []);
}

#[tokio::test]
async fn removal_keeps_the_end_of_other_jobs_recordings() {
    let store = Arc::new(MemoryRecordingStore::default());
    let writer = start_writer(&store);
    let (removed, other) = (JobId::new(), JobId::new());
    store.fail_appends_with(Some(StorageError::Unavailable {
        what: "the store".into(),
        reason: "it is stopped".into(),
    }));
    let too_large = "x".repeat(usize::try_from(MAX_SESSION_BYTES).unwrap());
    let write = WriterCommand::Write {
        recording: start_recording(other),
        frames: vec![RecordingFrame::RecordingStopped(too_large)],
        bytes: 0,
    };
    writer.commands.send(write).unwrap();
    writer.flush(None).await;
    let tenant = TenantId::default_tenant();
    writer.remove_recordings(&tenant, Some(&[removed])).await.unwrap();
    writer
        .remove_recordings(&"b".parse().unwrap(), None)
        .await
        .unwrap();
    store.fail_appends_with(None);
    drop(writer);
    let frames = stored_frames(&store, &other);
    assert!(
        matches!(frames.as_slice(), [RecordingFrame::RecordingStopped(why)] if why.contains("reached")),
        "{frames:?}"
    );
}

#[tokio::test]
async fn parts_are_stored_while_recordings_are_listed_or_removed() {
    for stalled in [RecordingStoreCall::Visit, RecordingStoreCall::Remove] {
        let store = Arc::new(MemoryRecordingStore::default());
        store.stall(stalled);
        let retention = Retention {
            max_days: 1,
            max_bytes: 1,
        };
        let writer = RecordingWriter::start(Arc::clone(&store) as _, retention).unwrap();
        let (tenant, job) = (TenantId::default_tenant(), JobId::new());
        let removed = [JobId::new()];
        let removal = writer.remove_recordings(&tenant, Some(&removed));
        let record = async {
            JobRecorder::new(&writer, session_header(job)).push_call(recorded_call(1));
            writer.flush(None).await;
            page_numbers(&stored_frames(&store, &job))
        };
        match stalled {
            RecordingStoreCall::Remove => tokio::select! {
                biased;
                _ = removal => panic!("the removal returns"),
                pages = record => assert_eq!(pages, [1]),
            },
            _ => assert_eq!(record.await, [1]),
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_respond_delays_the_end_by_the_limit_only() {
    let store = Arc::new(MemoryRecordingStore::default());
    store.stall(RecordingStoreCall::Append);
    let writer = start_writer(&store);
    let recorder = JobRecorder::new(&writer, session_header(JobId::new()));
    recorder.push_call(recorded_call(1));
    assert!(!writer.close(Duration::from_millis(20)).await);
    let (ended, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(writer);
        let _ = ended.send(());
    });
    received.recv_timeout(Duration::from_secs(8)).unwrap();
    // A job that still runs goes on.
    (2..200).for_each(|page| recorder.push_call(recorded_call(page)));
}
