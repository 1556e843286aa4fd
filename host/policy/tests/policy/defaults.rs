//! The default components answer in all four roles.

use std::sync::Arc;

use weir_core::decision::{Observation, Reading, Verdict};
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;

use crate::asking::{FUNCTIONS, ask};
use crate::support::*;

#[tokio::test]
async fn every_function_is_answered() {
    let host = host();
    let port = Arc::new(Port::default());
    let job = open(&host, &pipeline("", &[]), &port).await.unwrap();

    let plan = job.plan(situation()).await.unwrap();
    assert!(
        (1..=10).contains(&plan.pages) && (36..=600).contains(&plan.dpi),
        "{plan:?}"
    );
    assert_eq!(job.route_document(facts()).await.unwrap().collection, "default");
    let text = job.route_page(&document(), page(1)).await.unwrap();
    assert_eq!((text.reading, text.embed), (Reading::TextLayer, true));
    let scan = weir_core::page::PageFacts {
        text_chars: 0,
        image_coverage: 1.0,
        ..page(2)
    };
    assert_eq!(
        job.route_page(&document(), scan).await.unwrap().reading,
        Reading::Ocr
    );
    assert!(matches!(
        job.judge(failure()).await.unwrap(),
        Verdict::RetryAfter(_) | Verdict::SkipPage | Verdict::FailDocument
    ));
    let source = source();
    let passages = job.passages(source.clone()).await.unwrap();
    assert!(!passages.is_empty());
    for range in passages {
        assert!(
            source
                .text
                .get(range.start as usize..range.end as usize)
                .is_some()
        );
    }
    job.summarize(section()).await.unwrap();
    job.observe(0, started()).await.unwrap();
    let done = Observation::PageDone {
        document: document(),
        page: 1,
        searchable: true,
        passages: 3,
    };
    for update in job.observe(900, done).await.unwrap() {
        assert!((0.0..=100.0).contains(&update.percent));
        assert_eq!(update.document, document());
    }

    let stats = job.stats();
    assert_eq!(
        (stats.calls, stats.traps, stats.nonsense, stats.stood_in),
        (9, 0, 0, 0)
    );
    assert!(stats.guest_time > std::time::Duration::ZERO);
    assert!(port.failed.lock().is_empty());
}

#[tokio::test]
async fn settings_of_the_manifest_reach_the_component() {
    let host = host();
    let port = Arc::new(Port::default());
    let job = open(&host, &pipeline("[settings]\ndpi = 97", &[]), &port)
        .await
        .unwrap();
    assert_eq!(job.plan(situation()).await.unwrap().dpi, 97);
}

#[tokio::test]
async fn a_component_of_several_roles_is_one_instance() {
    let host = host();
    let port = Arc::new(Port::default());
    let pipeline = only(&Role::ALL, &component("hostile-log"));
    let job = open(&host, &pipeline, &port).await.unwrap();
    assert_eq!(host.stats().instances, 1);
    assert_eq!(host.stats().free_places, 15);
    for (function, _) in FUNCTIONS {
        ask(&job, function).await.unwrap();
    }
    drop(job);
    assert_eq!(host.stats().free_places, 16);
}
