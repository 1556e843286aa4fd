//! Recordings of policy calls.

use std::sync::Arc;

use weir_conformance::MemoryRecordingStore;
use weir_core::decision::PageToRoute;
use weir_core::manifest::Role;
use weir_core::ports::{JobPolicy, OpenPolicyRequest};
use weir_core::{JobId, TenantId};
use weir_policy::{
    PolicyFunctionCall, PolicyHost, RecordedDecision, RecordingFrame, Retention, read_recording,
};

use crate::support::*;

#[tokio::test]
async fn the_calls_of_a_job_are_recorded() {
    let store = Arc::new(MemoryRecordingStore::default());
    let mut config = test_config();
    config.recordings = Some(store.clone());
    let host = PolicyHost::new(config).unwrap();
    let tenant: TenantId = "acme".parse().unwrap();
    let id = JobId::new();
    let pipeline = pipeline_with_components("[settings]\ndpi = 200", &[(Role::Chunking, "hostile-trap")]);
    let job = host
        .open_job(OpenPolicyRequest {
            tenant: &tenant,
            job: id,
            pipeline: &pipeline,
            capabilities: Arc::new(FakeCapabilities::default()),
        })
        .await
        .unwrap();
    let plan = job.plan_batch(sample_batch_context()).await.unwrap();
    let route = job
        .route_page(&sample_document_id(), sample_page(7))
        .await
        .unwrap();
    let passages = job.split_passages(sample_passage_source()).await.unwrap();
    drop(job);
    host.flush_recordings().await;

    let frames = read_recording(&*store, &tenant, &id).await.unwrap();
    let [
        RecordingFrame::SessionStarted(opened),
        RecordingFrame::Call(a),
        RecordingFrame::Call(b),
        RecordingFrame::Call(c),
        RecordingFrame::Call(d),
        RecordingFrame::SessionEnded { calls: 4 },
    ] = &frames[..]
    else {
        panic!("{frames:?}");
    };
    assert_eq!((&opened.tenant, opened.job), (&tenant, id));
    assert_eq!(opened.revision, pipeline.revision);
    assert_eq!(opened.settings["dpi"], "200");
    let component_of_call = |component: u16| {
        let component = &opened.components[usize::from(component)];
        (component.name.as_str(), component.digest)
    };
    assert_eq!(
        component_of_call(a.component_index),
        ("batching", built_component("batching").digest)
    );
    let plan = PolicyFunctionCall {
        request: sample_batch_context(),
        response: Ok(plan),
    };
    assert_eq!(a.decision, RecordedDecision::Plan(plan));
    let route = PolicyFunctionCall {
        request: PageToRoute {
            document: sample_document_id(),
            facts: sample_page(7),
        },
        response: Ok(route),
    };
    assert_eq!(b.decision, RecordedDecision::Page(route));
    // First the component that trapped, then its fallback.
    assert_eq!(component_of_call(c.component_index).0, "hostile-trap");
    let RecordedDecision::Passages(PolicyFunctionCall {
        request,
        response: Err(error),
    }) = &c.decision
    else {
        panic!("{c:?}");
    };
    assert_eq!(
        (request, error.kind.as_str()),
        (&sample_passage_source(), "component-trap")
    );
    assert_eq!(component_of_call(d.component_index).0, "chunking");
    let passages = PolicyFunctionCall {
        request: sample_passage_source(),
        response: Ok(passages),
    };
    assert_eq!(d.decision, RecordedDecision::Passages(passages));
}

#[tokio::test]
async fn only_the_latest_recordings_within_max_bytes_are_kept() {
    let store = Arc::new(MemoryRecordingStore::default());
    let mut config = test_config();
    config.recordings = Some(store.clone());
    // More than one recording, less than two.
    config.retention = Retention {
        max_days: 0,
        max_bytes: 6000,
    };
    let host = PolicyHost::new(config).unwrap();
    let pipeline = single_component_pipeline(&[Role::Routing], &built_component("routing"));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = JobId::new();
        let request = OpenPolicyRequest {
            tenant: &TenantId::default_tenant(),
            job: id,
            pipeline: &pipeline,
            capabilities: Arc::new(FakeCapabilities::default()),
        };
        let job = host.open_job(request).await.unwrap();
        for number in 1..=50 {
            job.route_page(&sample_document_id(), sample_page(number))
                .await
                .unwrap();
        }
        drop(job);
        host.flush_recordings().await;
        ids.push(id);
    }
    let is_kept = |id: &JobId| !store.sessions(&TenantId::default_tenant(), id).is_empty();
    // A task beside the writer removes them.
    while ids.iter().map(is_kept).collect::<Vec<_>>() != [false, false, true] {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
