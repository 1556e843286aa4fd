//! Replay of recorded jobs, against the same components and against others.

use std::sync::Arc;
use std::time::SystemTime;

use futures::future::join_all;
use weir_conformance::MemoryRecordingStore;
use weir_core::manifest::{Capability, ResolvedPipeline, Role};
use weir_core::ports::{JobPolicy as _, OpenPolicyRequest};
use weir_core::replay::{JobReplayer as _, ReplayError, ReplayReport};
use weir_core::{JobId, TenantId};
use weir_policy::{PolicyHost, RecordingFrame, WasmJobPolicy};

use crate::contract_functions::{CONTRACT_FUNCTIONS, call_function};
use crate::support::*;

struct RecordingHost {
    host: Arc<PolicyHost>,
    id: JobId,
    store: Arc<MemoryRecordingStore>,
}

impl RecordingHost {
    fn new() -> Self {
        let store = Arc::new(MemoryRecordingStore::default());
        let mut config = test_config();
        config.recordings = Some(store.clone());
        config.retention.max_days = 30;
        Self {
            host: PolicyHost::new(config).unwrap(),
            id: JobId::new(),
            store,
        }
    }

    async fn open_recorded_job(&self, pipeline: &ResolvedPipeline) -> Arc<WasmJobPolicy> {
        let request = OpenPolicyRequest {
            tenant: &TenantId::default_tenant(),
            job: self.id,
            pipeline,
            capabilities: Arc::new(FakeCapabilities::default()),
        };
        self.host.open_job(request).await.unwrap()
    }

    async fn replay_recorded_job(&self, pipeline: &ResolvedPipeline) -> ReplayReport {
        let tenant = TenantId::default_tenant();
        self.host.replay_job(&tenant, &self.id, pipeline).await.unwrap()
    }
}

/// Makes calls of all functions, many of them at the same time, as a job does for the pages of a document.
async fn make_many_calls(job: &WasmJobPolicy) {
    for _ in 0..20 {
        join_all(CONTRACT_FUNCTIONS.map(|(function, _)| call_function(job, function))).await;
        join_all((1..=30).map(|number| async move {
            let _ = job.route_page(&sample_document_id(), sample_page(number)).await;
            let _ = job.split_passages(sample_passage_source()).await;
            let _ = job
                .decide_progress_updates(u64::from(number), sample_document_started_event())
                .await;
        }))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_with_the_same_components_has_identical_decisions() {
    let with_state = {
        let mut pipeline = pipeline_with_components(
            "on-component-failure = 'default'",
            &[(Role::Routing, "hostile-state")],
        );
        pipeline.manifest.capabilities.grant = vec![Capability::State];
        pipeline
    };
    let with_models = {
        let mut pipeline = pipeline_with_components(
            "on-component-failure = 'default'",
            &[(Role::Chunking, "hostile-inference")],
        );
        pipeline.manifest.capabilities.grant = vec![Capability::Inference];
        pipeline
    };
    for pipeline in [
        pipeline_with_components("[settings]\ndpi = 200", &[]),
        pipeline_with_components(
            "on-component-failure = 'default'",
            &[(Role::Chunking, "hostile-trap")],
        ),
        pipeline_with_components(
            "on-component-failure = 'fail'",
            &[(Role::Routing, "hostile-invalid-routing")],
        ),
        with_state,
        with_models,
    ] {
        let recording = RecordingHost::new();
        let job = recording.open_recorded_job(&pipeline).await;
        make_many_calls(&job).await;
        drop(job);
        let report = recording.replay_recorded_job(&pipeline).await;
        assert_eq!(report.decisions, 20 * (7 + 90), "{:?}", pipeline.manifest);
        assert_eq!(
            (report.differing, report.missing_capability_responses),
            (0, 0),
            "{:?}",
            report.differences.first()
        );
        assert_eq!(report.before, report.after);
        assert_eq!(report.incomplete_reason, None);
    }
}

#[tokio::test]
async fn replay_reports_decisions_that_differ() {
    let recording = RecordingHost::new();
    let recorded_pipeline = pipeline_with_components("[settings]\ndpi = 150", &[]);
    let job = recording.open_recorded_job(&recorded_pipeline).await;
    job.plan_batch(sample_batch_context()).await.unwrap();
    for number in 1..=3 {
        job.route_page(&sample_document_id(), sample_page(number))
            .await
            .unwrap();
    }
    drop(job);

    // Another resolution changes the batch plan and nothing else.
    let report = recording
        .replay_recorded_job(&pipeline_with_components("[settings]\ndpi = 72", &[]))
        .await;
    assert_eq!((report.decisions, report.differing), (4, 1));
    let difference = &report.differences[0];
    assert_eq!(
        (&*difference.function, &*difference.subject),
        ("batching.plan", "the batch from page 1")
    );
    assert!(difference.before.contains("dpi: 150") && difference.after.contains("dpi: 72"));

    // A component that traps, without a fallback.
    let trapping = pipeline_with_components(
        "on-component-failure = 'fail'\n[settings]\ndpi = 150",
        &[(Role::Routing, "hostile-trap")],
    );
    let report = recording.replay_recorded_job(&trapping).await;
    assert_eq!((report.differing, report.after.errors), (3, 3));
    assert_eq!((report.before.text_layer, report.after.text_layer), (3, 0));
    assert!(
        report.differences[0].after.starts_with("component-trap: "),
        "{:?}",
        report.differences
    );
}

#[tokio::test]
async fn host_calls_without_recorded_response_are_counted() {
    let recording = RecordingHost::new();
    let job = recording
        .open_recorded_job(&pipeline_with_components("", &[]))
        .await;
    job.route_page(&sample_document_id(), sample_page(1))
        .await
        .unwrap();
    drop(job);
    let mut pipeline_with_state = pipeline_with_components("", &[(Role::Routing, "hostile-state")]);
    pipeline_with_state.manifest.capabilities.grant = vec![Capability::State];
    let report = recording.replay_recorded_job(&pipeline_with_state).await;
    // The component makes one read and one write.
    assert_eq!((report.decisions, report.missing_capability_responses), (1, 2));
}

#[tokio::test]
async fn a_job_that_was_not_recorded_cannot_be_replayed() {
    let recording = RecordingHost::new();
    let tenant = TenantId::default_tenant();
    let other = JobId::new();
    let missing = recording
        .host
        .replay_job(&tenant, &other, &pipeline_with_components("", &[]))
        .await;
    assert_eq!(missing, Err(ReplayError::NotRecorded(other)));
    // This job id was created in February 2022.
    let old: JobId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
    let expired = recording
        .host
        .replay_job(&tenant, &old, &pipeline_with_components("", &[]))
        .await;
    let message = expired.unwrap_err().to_string();
    assert!(
        message.contains("was removed") && message.contains("policy.recording_retention_days is 30"),
        "{message}"
    );
    let without_recordings = new_host()
        .replay_job(&tenant, &other, &pipeline_with_components("", &[]))
        .await;
    assert_eq!(without_recordings, Err(ReplayError::NotRecorded(other)));
}

#[tokio::test]
async fn each_session_of_a_resumed_job_gets_fresh_instances() {
    let recording = RecordingHost::new();
    let pipeline = pipeline_with_components("", &[]);
    for _ in 0..2 {
        let job = recording.open_recorded_job(&pipeline).await;
        for at in [0, 500, 1000] {
            job.decide_progress_updates(at, sample_document_started_event())
                .await
                .unwrap();
        }
        drop(job);
    }
    let report = recording.replay_recorded_job(&pipeline).await;
    assert_eq!(
        (report.decisions, report.differing),
        (6, 0),
        "{:?}",
        report.differences
    );
}

#[tokio::test]
async fn truncated_recording_is_reported_as_incomplete() {
    let recording = RecordingHost::new();
    let pipeline = pipeline_with_components("", &[]);
    let job = recording.open_recorded_job(&pipeline).await;
    for number in 1..=20 {
        job.route_page(&sample_document_id(), sample_page(number))
            .await
            .unwrap();
    }
    drop(job);
    assert_eq!(
        recording.replay_recorded_job(&pipeline).await.incomplete_reason,
        None
    );
    let tenant = TenantId::default_tenant();
    let whole = recording.store.sessions(&tenant, &recording.id).pop().unwrap();
    let replace_session = |bytes: &[u8]| {
        recording
            .store
            .insert(&tenant, &recording.id, bytes.to_vec(), SystemTime::now());
    };
    // Cuts the session within frames and between them.
    let lengths = (whole.len() / 3..whole.len()).rev();
    for length in lengths.clone().take(40).chain(lengths.step_by(101)) {
        replace_session(&whole[..length]);
        let report = recording.replay_recorded_job(&pipeline).await;
        let reason = report.incomplete_reason.unwrap_or_default();
        assert!(
            reason.contains("cut short"),
            "{length} of {}: {reason}",
            whole.len()
        );
    }
    // Not even the start of the session was stored completely.
    for length in [0, 3] {
        replace_session(&whole[..length]);
        let report = recording.replay_recorded_job(&pipeline).await;
        let reason = report.incomplete_reason.unwrap_or_default();
        assert!(
            report.decisions == 0 && reason.contains("beginning"),
            "{length}: {reason}"
        );
    }
    replace_session(&whole);
    // A call in the middle is missing.
    let frames = weir_policy::read_recording(&*recording.store, &tenant, &recording.id)
        .await
        .unwrap();
    assert!(frames.len() > 3);
    let mut frames: Vec<_> = frames
        .into_iter()
        .enumerate()
        .filter(|(index, _)| *index != 2)
        .map(|(_, frame)| frame)
        .collect();
    frames.push(RecordingFrame::SessionEnded { calls: 20 });
    let report = recording.host.replay_frames(frames, &pipeline).await.unwrap();
    assert!(report.incomplete_reason.unwrap().contains("calls of 20"));
}
