//! The default components in all four roles.

use std::sync::Arc;

use weir_core::decision::{FailureAction, ObservedEvent, ReadingMethod};
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;

use crate::contract_functions::{CONTRACT_FUNCTIONS, call_function};
use crate::support::*;

#[tokio::test]
async fn defaults_return_a_decision_for_every_function() {
    let host = new_host();
    let port = Arc::new(FakeCapabilities::default());
    let job = open_job(&host, &pipeline_with_components("", &[]), &port)
        .await
        .unwrap();

    let plan = job.plan_batch(sample_batch_context()).await.unwrap();
    assert!(
        (1..=10).contains(&plan.pages) && (36..=600).contains(&plan.dpi),
        "{plan:?}"
    );
    assert_eq!(
        job.route_document(sample_document_facts())
            .await
            .unwrap()
            .collection,
        "default"
    );
    let text = job
        .route_page(&sample_document_id(), sample_page(1))
        .await
        .unwrap();
    assert_eq!(
        (text.reading_method, text.embed),
        (ReadingMethod::TextLayer, true)
    );
    let scan = weir_core::page::PageFacts {
        text_chars: 0,
        image_coverage: 1.0,
        ..sample_page(2)
    };
    assert_eq!(
        job.route_page(&sample_document_id(), scan)
            .await
            .unwrap()
            .reading_method,
        ReadingMethod::Ocr
    );
    assert!(matches!(
        job.choose_failure_action(sample_failure()).await.unwrap(),
        FailureAction::RetryAfter(_) | FailureAction::SkipPage | FailureAction::FailDocument
    ));
    let source = sample_passage_source();
    let passages = job.split_passages(source.clone()).await.unwrap();
    assert!(!passages.is_empty());
    for range in passages {
        assert!(
            source
                .text
                .get(range.start as usize..range.end as usize)
                .is_some()
        );
    }
    job.plan_summary(sample_section()).await.unwrap();
    job.decide_progress_updates(0, sample_document_started_event())
        .await
        .unwrap();
    let done = ObservedEvent::PageDone {
        document: sample_document_id(),
        page: 1,
        searchable: true,
        passages: 3,
    };
    for update in job.decide_progress_updates(900, done).await.unwrap() {
        assert!((0.0..=100.0).contains(&update.percent));
        assert_eq!(update.document, sample_document_id());
    }

    let stats = job.stats();
    assert_eq!(
        (
            stats.calls,
            stats.failed_calls,
            stats.invalid_decisions,
            stats.fallback_calls
        ),
        (9, 0, 0, 0)
    );
    assert!(stats.guest_time > std::time::Duration::ZERO);
    assert!(port.policy_errors.lock().is_empty());
}

#[tokio::test]
async fn settings_of_the_manifest_reach_the_component() {
    let host = new_host();
    let port = Arc::new(FakeCapabilities::default());
    let job = open_job(
        &host,
        &pipeline_with_components("[settings]\ndpi = 97", &[]),
        &port,
    )
    .await
    .unwrap();
    assert_eq!(job.plan_batch(sample_batch_context()).await.unwrap().dpi, 97);
}

#[tokio::test]
async fn a_component_of_several_roles_is_one_instance() {
    let host = new_host();
    let port = Arc::new(FakeCapabilities::default());
    let pipeline = single_component_pipeline(&Role::ALL, &built_component("hostile-log"));
    let job = open_job(&host, &pipeline, &port).await.unwrap();
    assert_eq!(host.stats().instances_created, 1);
    assert_eq!(host.stats().free_instances, 15);
    for (function, _) in CONTRACT_FUNCTIONS {
        call_function(&job, function).await.unwrap();
    }
    drop(job);
    assert_eq!(host.stats().free_instances, 16);
}
