//! What the tenant is told of its components: the lines they write, and how their calls failed.

use std::sync::Arc;

use weir_core::manifest::Role;
use weir_core::said::{FailureReport, LogLevel, RemarkKind};

use crate::asking::ask;
use crate::support::*;

/// The reports of `calls` of a component that stands alone.
async fn reports(name: &str, role: Role, calls: &[&'static str]) -> Vec<(String, FailureReport)> {
    let port = Arc::new(Port::default());
    let job = open(&host(), &only(&[role], &component(name)), &port)
        .await
        .unwrap();
    for function in calls {
        ask(&job, function).await.unwrap_err();
    }
    let said = port.said.lock();
    let reports = said.iter().filter_map(|remark| match &remark.what {
        RemarkKind::Failure(report) => {
            assert_eq!(remark.component, name);
            Some((remark.function.clone(), FailureReport::clone(report)))
        }
        RemarkKind::Line { .. } => None,
    });
    reports.collect()
}

#[tokio::test]
async fn a_trap_is_reported_with_its_place_in_the_source() {
    let reports = reports(
        "hostile-trap",
        Role::Routing,
        &["routing.page", "routing.failed", "routing.page"],
    )
    .await;
    let functions: Vec<&str> = reports.iter().map(|(function, _)| function.as_str()).collect();
    assert_eq!(functions, ["routing.page", "routing.failed", "routing.page"]);
    let digest: String = component("hostile-trap")
        .digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for (turn, (function, report)) in (0..).zip(&reports) {
        let (interface, name) = function.split_once('.').unwrap();
        let export = format!("weir:pipeline/{interface}@0.1.0#{name}");
        assert!(
            report
                .backtrace
                .iter()
                .any(|frame| frame.function.contains(&export)),
            "{report:?}"
        );
        assert_eq!(report.turn, turn);
        assert_eq!(report.error.kind, "component-trap");
        assert_eq!(report.version, digest);
        let said = report.said.as_deref().unwrap();
        assert!(said.contains("the weir is broken"), "{said}");
        assert_eq!(report.limit, None);
        let frame = &report.backtrace[0];
        let place = frame.file.as_deref().unwrap();
        assert!(place.contains("hostile") && place.ends_with(".rs"), "{place}");
        assert!(frame.line.unwrap() > 1, "{frame:?}");
        assert!(!place.contains("/home") && !place.contains("/root"), "{place}");
    }
    // The same question has the same number, another has another.
    let asked: Vec<_> = reports
        .iter()
        .map(|(_, report)| report.question.clone().unwrap())
        .collect();
    assert_eq!(asked[0], asked[2]);
    assert_ne!(asked[0], asked[1]);
    assert_eq!(asked[0].len(), 64);
}

#[tokio::test]
async fn a_limit_is_reported_by_its_name() {
    for (name, function, limit) in [
        ("hostile-loop", "routing.page", "50 ms"),
        ("hostile-memory", "routing.page", "33554432 bytes of memory"),
        ("hostile-stack", "routing.page", "stack"),
        ("hostile-output", "routing.document", "1048576 bytes of output"),
    ] {
        let reports = reports(name, Role::Routing, &[function]).await;
        let [(_, report)] = reports.as_slice() else {
            panic!("{name}: {} reports", reports.len());
        };
        let said = report.limit.as_deref().unwrap();
        assert!(said.contains(limit), "{name}: {said}");
        assert!(report.backtrace.len() <= 20);
    }
}

#[tokio::test]
async fn an_answer_out_of_range_is_reported_without_a_backtrace() {
    let reports = reports("hostile-nonsense-batching", Role::Batching, &["batching.plan"]).await;
    let (function, report) = &reports[0];
    assert_eq!(
        (function.as_str(), report.error.kind.as_str()),
        ("batching.plan", "component-nonsense")
    );
    assert!(report.backtrace.is_empty() && report.question.is_some());
}

#[tokio::test]
async fn a_job_reports_a_hundred_failures_and_counts_all() {
    let port = Arc::new(Port::default());
    let pipeline = only(&[Role::Progress], &component("hostile-trap"));
    let job = open(&host(), &pipeline, &port).await.unwrap();
    for _ in 0..110 {
        ask(&job, "progress.observe").await.unwrap_err();
    }
    let said = port.said.lock();
    let failures = said
        .iter()
        .filter(|remark| matches!(remark.what, RemarkKind::Failure(_)));
    assert_eq!((failures.count(), job.stats().traps), (100, 110));
}

#[tokio::test]
async fn lines_come_with_their_function_and_end_with_a_word_about_the_rest() {
    let port = Arc::new(Port::default());
    let mut pipeline = only(&[Role::Routing], &component("hostile-log"));
    pipeline.manifest.limits.call_millis = Some(1000);
    let job = open(&host(), &pipeline, &port).await.unwrap();
    ask(&job, "routing.document").await.unwrap();
    ask(&job, "routing.page").await.unwrap();
    let said = port.said.lock();
    assert_eq!(said.len(), 1001);
    for (place, remark) in said.iter().enumerate() {
        let RemarkKind::Line { level, message } = &remark.what else {
            panic!("{remark:?}");
        };
        assert_eq!(
            (remark.component.as_str(), remark.function.as_str()),
            ("hostile-log", "routing.document")
        );
        if place < 1000 {
            assert_eq!((*level, message.len()), (LogLevel::Info, 1000));
        } else {
            assert_eq!(*level, LogLevel::Warn);
            assert!(message.contains("no more"), "{message}");
        }
    }
}
