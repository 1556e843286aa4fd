//! A job's decisions had again: the same from the same components, and what differs from others.

use std::sync::Arc;

use futures::future::join_all;
use weir_core::manifest::{Capability, Pipeline, Role};
use weir_core::ports::{JobPolicy as _, PolicyRequest};
use weir_core::replay::{ReplayError, ReplayReport, Replays as _};
use weir_core::{JobId, TenantId};
use weir_policy::{Frame, Job, PolicyHost};

use crate::asking::{FUNCTIONS, ask};
use crate::support::*;

struct Recording {
    host: Arc<PolicyHost>,
    id: JobId,
    folder: tempfile::TempDir,
}

impl Recording {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config();
        config.recordings = Some(folder.path().to_owned());
        config.retention.days = 30;
        Self {
            host: PolicyHost::new(config).unwrap(),
            id: JobId::new(),
            folder,
        }
    }

    async fn open(&self, pipeline: &Pipeline) -> Arc<Job> {
        let request = PolicyRequest {
            tenant: &TenantId::single(),
            job: self.id,
            pipeline,
            capabilities: Arc::new(Port::default()),
        };
        self.host.open_job(request).await.unwrap()
    }

    async fn replay(&self, pipeline: &Pipeline) -> ReplayReport {
        let tenant = TenantId::single();
        self.host.replay(&tenant, &self.id, pipeline).await.unwrap()
    }
}

/// Everything there is to ask, much of it at once, as the pages of a document do.
async fn much(job: &Job) {
    for _ in 0..20 {
        join_all(FUNCTIONS.map(|(function, _)| ask(job, function))).await;
        join_all((1..=30).map(|number| async move {
            let _ = job.route_page(&document(), page(number)).await;
            let _ = job.passages(source()).await;
            let _ = job.observe(u64::from(number), started()).await;
        }))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_components_decide_the_same_byte_for_byte() {
    let with_state = {
        let mut pipeline = pipeline("on-trap = 'default'", &[(Role::Routing, "hostile-state")]);
        pipeline.manifest.capabilities.grant = vec![Capability::State];
        pipeline
    };
    let with_models = {
        let mut pipeline = pipeline("on-trap = 'default'", &[(Role::Chunking, "hostile-inference")]);
        pipeline.manifest.capabilities.grant = vec![Capability::Inference];
        pipeline
    };
    for pipeline in [
        pipeline("[settings]\ndpi = 200", &[]),
        pipeline("on-trap = 'default'", &[(Role::Chunking, "hostile-trap")]),
        pipeline("on-trap = 'fail'", &[(Role::Routing, "hostile-nonsense-routing")]),
        with_state,
        with_models,
    ] {
        let recording = Recording::new();
        let job = recording.open(&pipeline).await;
        much(&job).await;
        drop(job);
        let report = recording.replay(&pipeline).await;
        assert_eq!(report.decisions, 20 * (7 + 90), "{:?}", pipeline.manifest);
        assert_eq!(
            (report.differing, report.missed),
            (0, 0),
            "{:?}",
            report.differences.first()
        );
        assert_eq!(report.before, report.after);
        assert_eq!(report.incomplete, None);
    }
}

#[tokio::test]
async fn what_another_component_decides_otherwise_is_told() {
    let recording = Recording::new();
    let ran = pipeline("[settings]\ndpi = 150", &[]);
    let job = recording.open(&ran).await;
    job.plan(situation()).await.unwrap();
    for number in 1..=3 {
        job.route_page(&document(), page(number)).await.unwrap();
    }
    drop(job);

    // Another resolution is another plan, and nothing else.
    let report = recording.replay(&pipeline("[settings]\ndpi = 72", &[])).await;
    assert_eq!((report.decisions, report.differing), (4, 1));
    let difference = &report.differences[0];
    assert_eq!(
        (&*difference.function, &*difference.about),
        ("batching.plan", "the batch from page 1")
    );
    assert!(difference.before.contains("dpi: 150") && difference.after.contains("dpi: 72"));

    // A component that does not decide, where nobody stands in.
    let trapping = pipeline(
        "on-trap = 'fail'\n[settings]\ndpi = 150",
        &[(Role::Routing, "hostile-trap")],
    );
    let report = recording.replay(&trapping).await;
    assert_eq!((report.differing, report.after.errors), (3, 3));
    assert_eq!((report.before.text_layer, report.after.text_layer), (3, 0));
    assert!(
        report.differences[0].after.starts_with("component-trap: "),
        "{:?}",
        report.differences
    );
}

#[tokio::test]
async fn what_was_not_asked_then_has_no_answer_now() {
    let recording = Recording::new();
    let job = recording.open(&pipeline("", &[])).await;
    job.route_page(&document(), page(1)).await.unwrap();
    drop(job);
    let mut asks = pipeline("", &[(Role::Routing, "hostile-state")]);
    asks.manifest.capabilities.grant = vec![Capability::State];
    let report = recording.replay(&asks).await;
    // It reads and writes.
    assert_eq!((report.decisions, report.missed), (1, 2));
}

#[tokio::test]
async fn a_job_that_was_not_recorded_cannot_be_replayed() {
    let recording = Recording::new();
    let tenant = TenantId::single();
    let other = JobId::new();
    let missing = recording.host.replay(&tenant, &other, &pipeline("", &[])).await;
    assert_eq!(missing, Err(ReplayError::NotRecorded(other)));
    // Of February 2022, as its id says.
    let old: JobId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
    let outlived = recording.host.replay(&tenant, &old, &pipeline("", &[])).await;
    let said = outlived.unwrap_err().to_string();
    assert!(
        said.contains("not kept any more") && said.contains("policy.record_days is 30"),
        "{said}"
    );
    let never = host().replay(&tenant, &other, &pipeline("", &[])).await;
    assert_eq!(never, Err(ReplayError::NotRecorded(other)));
}

#[tokio::test]
async fn sittings_of_a_job_that_was_resumed_are_replayed_each_with_fresh_instances() {
    let recording = Recording::new();
    let pipeline = pipeline("", &[]);
    for _ in 0..2 {
        let job = recording.open(&pipeline).await;
        for at in [0, 500, 1000] {
            job.observe(at, started()).await.unwrap();
        }
        drop(job);
    }
    let report = recording.replay(&pipeline).await;
    assert_eq!(
        (report.decisions, report.differing),
        (6, 0),
        "{:?}",
        report.differences
    );
}

#[tokio::test]
async fn a_recording_that_is_cut_short_says_so() {
    let recording = Recording::new();
    let pipeline = pipeline("", &[]);
    let job = recording.open(&pipeline).await;
    for number in 1..=20 {
        job.route_page(&document(), page(number)).await.unwrap();
    }
    drop(job);
    assert_eq!(recording.replay(&pipeline).await.incomplete, None);
    let path = recording
        .folder
        .path()
        .join(format!("default/{}.calls", recording.id));
    let whole = std::fs::read(&path).unwrap();
    // Within frames and between them.
    let lengths = (whole.len() / 3..whole.len()).rev();
    for length in lengths.clone().take(40).chain(lengths.step_by(101)) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let report = recording.replay(&pipeline).await;
        let reason = report.incomplete.unwrap_or_default();
        assert!(
            reason.contains("cut short"),
            "{length} of {}: {reason}",
            whole.len()
        );
    }
    // A group in the middle that was never written.
    let frames = weir_policy::read_recording(&path).unwrap();
    assert!(frames.len() > 3);
    let mut frames: Vec<_> = frames
        .into_iter()
        .enumerate()
        .filter(|(place, _)| *place != 2)
        .map(|(_, frame)| frame)
        .collect();
    frames.push(Frame::Ended { calls: 20 });
    let report = recording.host.replay_frames(frames, &pipeline).await.unwrap();
    assert!(report.incomplete.unwrap().contains("calls of 20"));
}
