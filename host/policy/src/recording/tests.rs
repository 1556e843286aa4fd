use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::job_recorder::MAX_GROUP_FRAMES;
use super::recording_file::{MAX_RECORDING_BYTES, RecordingInProgress, append_frames, encode_frames};
use super::*;
use weir_core::decision::{PageRoute, PageToRoute, ReadingMethod};
use weir_core::manifest::ComponentLimits;
use weir_core::page::PageFacts;
use weir_core::{DocumentId, JobId, RevisionId, TenantId};

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

fn recording_file(path: &Path) -> RecordingInProgress {
    RecordingInProgress::new(path.to_owned())
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

#[test]
fn recorded_frames_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let job = JobId::new();
    let writer = RecordingWriter::start(folder.path().join("recordings"), Retention::default()).unwrap();
    let recorder = JobRecorder::new(&writer, session_header(job));
    for page in 1..=100 {
        recorder.push_call(recorded_call(page));
    }
    drop(recorder);
    drop(writer);
    let path = folder.path().join(format!("recordings/default/{job}.calls"));
    let frames = read_recording(&path).unwrap();
    assert_eq!(
        frames[0],
        RecordingFrame::SessionStarted(Box::new(session_header(job)))
    );
    assert_eq!(frames[1], RecordingFrame::Call(Box::new(recorded_call(1))));
    assert_eq!(page_numbers(&frames), (1..=100).collect::<Vec<_>>());
    assert_eq!(frames.last(), Some(&RecordingFrame::SessionEnded { calls: 100 }));
}

/// Four threads record calls at the same time, and each fills two groups.
#[test]
fn frame_groups_are_written_in_submission_order() {
    let folder = tempfile::tempdir().unwrap();
    let writer = RecordingWriter::start(folder.path().to_owned(), Retention::default()).unwrap();
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
        let frames = read_recording(&folder.path().join(format!("default/{job}.calls"))).unwrap();
        let calls = 8 * MAX_GROUP_FRAMES as u64;
        assert!(
            matches!(frames.first(), Some(RecordingFrame::SessionStarted(_))),
            "the first frame is SessionStarted"
        );
        assert_eq!(frames.last(), Some(&RecordingFrame::SessionEnded { calls }));
        assert_eq!(frames.len() as u64, calls + 2);
    }
}

#[test]
fn a_failed_write_closes_the_file_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("default/job.calls");
    let file = recording_file(&path);
    append_frames(
        &file,
        &[RecordingFrame::SessionStarted(Box::new(session_header(
            JobId::new(),
        )))],
    )
    .unwrap();
    // A folder temporarily replaces the file, so that opening it fails.
    let moved_file = folder.path().join("aside");
    fs::rename(&path, &moved_file).unwrap();
    fs::create_dir(&path).unwrap();
    append_frames(&file, &[RecordingFrame::Call(Box::new(recorded_call(1)))]).unwrap_err();
    file.stop_recording();
    fs::remove_dir(&path).unwrap();
    fs::rename(&moved_file, &path).unwrap();
    assert_eq!(
        append_frames(&file, &[RecordingFrame::Call(Box::new(recorded_call(2)))]).unwrap(),
        0
    );
    assert_eq!(read_recording(&path).unwrap().len(), 1);
}

#[test]
fn a_resumed_job_cuts_off_a_torn_frame() {
    let folder = tempfile::tempdir().unwrap();
    let job = JobId::new();
    let record_session = |page| {
        let writer = RecordingWriter::start(folder.path().to_owned(), Retention::default()).unwrap();
        JobRecorder::new(&writer, session_header(job)).push_call(recorded_call(page));
    };
    let path = folder.path().join(format!("default/{job}.calls"));
    record_session(1);
    let end = encode_frames(&[RecordingFrame::SessionEnded { calls: 1 }])
        .unwrap()
        .len() as u64;
    let torn = fs::metadata(&path).unwrap().len() - end - 3;
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(torn)
        .unwrap();
    assert_eq!(read_recording(&path).unwrap().len(), 1);
    record_session(2);
    let frames = read_recording(&path).unwrap();
    assert_eq!(
        frames
            .iter()
            .filter(|f| matches!(f, RecordingFrame::SessionStarted(_)))
            .count(),
        2
    );
    assert_eq!(page_numbers(&frames), [2]);
}

#[test]
fn a_full_recording_ends_with_a_stop_frame() {
    let folder = tempfile::tempdir().unwrap();
    let job = JobId::new();
    let path = folder.path().join(format!("default/{job}.calls"));
    let file = recording_file(&path);
    append_frames(
        &file,
        &[RecordingFrame::SessionStarted(Box::new(session_header(job)))],
    )
    .unwrap();
    // One frame that almost reaches the byte limit.
    let filler =
        RecordingFrame::RecordingStopped("x".repeat(usize::try_from(MAX_RECORDING_BYTES).unwrap() - 400));
    append_frames(&file, &[filler]).unwrap();
    assert!(!file.stopped.load(Ordering::Relaxed));
    append_frames(&file, &vec![RecordingFrame::Call(Box::new(recorded_call(1))); 10]).unwrap();
    assert!(file.stopped.load(Ordering::Relaxed));
    let frames = read_recording(&path).unwrap();
    assert!(matches!(frames.last(), Some(RecordingFrame::RecordingStopped(why)) if why.contains("reached")));
    assert!(fs::metadata(&path).unwrap().len() <= MAX_RECORDING_BYTES + 100);
}

#[test]
fn trailing_zeros_are_not_read_as_frames() {
    let mut bytes = encode_frames(&[RecordingFrame::RecordingStopped("a".into())]).unwrap();
    let whole = bytes.len();
    bytes.extend_from_slice(&[0; 64]);
    assert_eq!(reader::complete_frames_len(&bytes), whole);
}

#[test]
fn a_job_without_calls_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let writer = RecordingWriter::start(folder.path().to_owned(), Retention::default()).unwrap();
    drop(JobRecorder::new(&writer, session_header(JobId::new())));
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn removed_recording_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let writer = RecordingWriter::start(folder.path().to_owned(), Retention::default()).unwrap();
    let [removed, other] = [JobId::new(), JobId::new()];
    let path = |job: JobId| folder.path().join(format!("default/{job}.calls"));
    let recorders = [removed, other].map(|job| {
        let recorder = JobRecorder::new(&writer, session_header(job));
        // More than a group, so that only some frames are in the file.
        (0..=u32::try_from(MAX_GROUP_FRAMES).unwrap())
            .for_each(|page| recorder.push_call(recorded_call(page)));
        recorder
    });
    writer.flush().await;
    assert!(path(removed).exists() && path(other).exists());
    let tenant = TenantId::default_tenant();
    writer
        .remove_recordings(&tenant, Some(&[removed, JobId::new()]))
        .await
        .unwrap();
    // The recorders submit their remaining frames after the removal.
    drop(recorders);
    writer.flush().await;
    assert!(!path(removed).exists());
    assert_eq!(
        page_numbers(&read_recording(&path(other)).unwrap()).len(),
        MAX_GROUP_FRAMES + 1
    );

    let unfinished_recorder = JobRecorder::new(&writer, session_header(JobId::new()));
    unfinished_recorder.push_call(recorded_call(1));
    writer
        .remove_recordings(&"b".parse().unwrap(), None)
        .await
        .unwrap();
    assert!(path(other).exists());
    writer.remove_recordings(&tenant, None).await.unwrap();
    drop(unfinished_recorder);
    writer.flush().await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // A new tenant of the same name is recorded again.
    let job = JobId::new();
    JobRecorder::new(&writer, session_header(job)).push_call(recorded_call(1));
    writer.flush().await;
    assert!(path(job).exists());
}
