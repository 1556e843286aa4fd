use super::super::{Component, Exchange, read_recording};
use super::*;
use weir_core::decision::{PageRoute, Reading};
use weir_core::manifest::Limits;
use weir_core::page::PageFacts;
use weir_core::{DocumentId, JobId, RevisionId, TenantId};

fn opened(job: JobId) -> Opened {
    Opened {
        tenant: TenantId::single(),
        job,
        pipeline: "p".into(),
        revision: RevisionId::of(b"r"),
        settings: [("dpi".to_owned(), "150".to_owned())].into(),
        components: vec![Component {
            name: "routing".into(),
            digest: [7; 32],
        }],
        assigned: Vec::new(),
        grants: Vec::new(),
        limits: Limits::default(),
    }
}

fn call(page: u32) -> Call {
    let facts = PageFacts {
        number: page,
        width: 612.0,
        height: 792.0,
        text_chars: 900,
        image_coverage: 0.25,
        readable: true,
    };
    let route = PageRoute {
        reading: Reading::TextLayer,
        embed: true,
        store: true,
        labels: vec![("kind".into(), "text".into())],
    };
    Call {
        component: 0,
        turn: page,
        micros: 1,
        heard: Vec::new(),
        exchange: Exchange::Page(DocumentId::of(b"d"), facts, Ok(route)),
    }
}

fn tape(path: &Path) -> Tape {
    Tape {
        path: path.to_owned(),
        stopped: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        removed: AtomicBool::new(false),
    }
}

fn pages(frames: &[Frame]) -> Vec<u32> {
    frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Call(call) => match &call.exchange {
                Exchange::Page(_, facts, _) => Some(facts.number),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

#[test]
fn what_was_recorded_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let job = JobId::new();
    let writer = Writer::start(folder.path().join("recordings"), Retention::default()).unwrap();
    let recorder = Recorder::new(&writer, opened(job));
    for page in 1..=100 {
        recorder.push(call(page));
    }
    drop(recorder);
    drop(writer);
    let path = folder.path().join(format!("recordings/default/{job}.calls"));
    let frames = read_recording(&path).unwrap();
    assert_eq!(frames[0], Frame::Opened(Box::new(opened(job))));
    assert_eq!(frames[1], Frame::Call(Box::new(call(1))));
    assert_eq!(pages(&frames), (1..=100).collect::<Vec<_>>());
    assert_eq!(frames.last(), Some(&Frame::Ended { calls: 100 }));
}

/// Threads add calls at once, as many that each fills groups.
#[test]
fn groups_are_written_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::start(folder.path().to_owned(), Retention::default()).unwrap();
    let jobs: Vec<JobId> = (0..100).map(|_| JobId::new()).collect();
    for job in &jobs {
        let recorder = Recorder::new(&writer, opened(*job));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2 * GROUP as u32).for_each(|page| recorder.push(call(page))));
            }
        });
    }
    drop(writer);
    for job in jobs {
        let frames = read_recording(&folder.path().join(format!("default/{job}.calls"))).unwrap();
        let calls = 8 * GROUP as u64;
        assert!(
            matches!(frames.first(), Some(Frame::Opened(_))),
            "the beginning is first"
        );
        assert_eq!(frames.last(), Some(&Frame::Ended { calls }));
        assert_eq!(frames.len() as u64, calls + 2);
    }
}

#[test]
fn a_failed_write_closes_the_file_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("default/job.calls");
    let tape = tape(&path);
    append(&tape, &[Frame::Opened(Box::new(opened(JobId::new())))]).unwrap();
    // Something that cannot be opened as a file stands in its place for a while.
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    append(&tape, &[Frame::Call(Box::new(call(1)))]).unwrap_err();
    tape.close();
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(append(&tape, &[Frame::Call(Box::new(call(2)))]).unwrap(), 0);
    assert_eq!(read_recording(&path).unwrap().len(), 1);
}

#[test]
fn a_resumed_job_goes_on_behind_a_torn_frame() {
    let folder = tempfile::tempdir().unwrap();
    let job = JobId::new();
    let sitting = |page| {
        let writer = Writer::start(folder.path().to_owned(), Retention::default()).unwrap();
        Recorder::new(&writer, opened(job)).push(call(page));
    };
    let path = folder.path().join(format!("default/{job}.calls"));
    sitting(1);
    let end = encode(&[Frame::Ended { calls: 1 }]).unwrap().len() as u64;
    let torn = fs::metadata(&path).unwrap().len() - end - 3;
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(torn)
        .unwrap();
    assert_eq!(read_recording(&path).unwrap().len(), 1);
    sitting(2);
    let frames = read_recording(&path).unwrap();
    assert_eq!(frames.iter().filter(|f| matches!(f, Frame::Opened(_))).count(), 2);
    assert_eq!(pages(&frames), [2]);
}

#[test]
fn a_full_recording_says_so_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let job = JobId::new();
    let path = folder.path().join(format!("default/{job}.calls"));
    let tape = tape(&path);
    append(&tape, &[Frame::Opened(Box::new(opened(job)))]).unwrap();
    // One frame of almost all the room there is.
    let filler = Frame::Stopped("x".repeat(usize::try_from(JOB_BYTES).unwrap() - 400));
    append(&tape, &[filler]).unwrap();
    assert!(!tape.stopped.load(Ordering::Relaxed));
    append(&tape, &vec![Frame::Call(Box::new(call(1))); 10]).unwrap();
    assert!(tape.stopped.load(Ordering::Relaxed));
    let frames = read_recording(&path).unwrap();
    assert!(matches!(frames.last(), Some(Frame::Stopped(why)) if why.contains("reached")));
    assert!(fs::metadata(&path).unwrap().len() <= JOB_BYTES + 100);
}

#[test]
fn zeros_at_the_end_are_no_frames() {
    let mut bytes = encode(&[Frame::Stopped("a".into())]).unwrap();
    let whole = bytes.len();
    bytes.extend_from_slice(&[0; 64]);
    assert_eq!(read::whole(&bytes), whole);
}

#[test]
fn a_job_that_asked_nothing_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::start(folder.path().to_owned(), Retention::default()).unwrap();
    drop(Recorder::new(&writer, opened(JobId::new())));
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn removed_recording_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::start(folder.path().to_owned(), Retention::default()).unwrap();
    let [removed, other] = [JobId::new(), JobId::new()];
    let path = |job: JobId| folder.path().join(format!("default/{job}.calls"));
    let recorders = [removed, other].map(|job| {
        let recorder = Recorder::new(&writer, opened(job));
        // More than a group, so that a part is in the file and a part is not.
        (0..=u32::try_from(GROUP).unwrap()).for_each(|page| recorder.push(call(page)));
        recorder
    });
    writer.flush().await;
    assert!(path(removed).exists() && path(other).exists());
    let tenant = TenantId::single();
    writer
        .remove(&tenant, Some(&[removed, JobId::new()]))
        .await
        .unwrap();
    // What the recorder still has comes after the removal.
    drop(recorders);
    writer.flush().await;
    assert!(!path(removed).exists());
    assert_eq!(pages(&read_recording(&path(other)).unwrap()).len(), GROUP + 1);

    let left = Recorder::new(&writer, opened(JobId::new()));
    left.push(call(1));
    writer.remove(&"b".parse().unwrap(), None).await.unwrap();
    assert!(path(other).exists());
    writer.remove(&tenant, None).await.unwrap();
    drop(left);
    writer.flush().await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // The next tenant of the name is recorded again.
    let job = JobId::new();
    Recorder::new(&writer, opened(job)).push(call(1));
    writer.flush().await;
    assert!(path(job).exists());
}
