//! The component log: lines that components write, and reports of failed calls.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use weir_core::component_log::{ComponentFailureReport, ComponentLogRecordKind, LogLevel};
use weir_core::manifest::Role;

use crate::contract_functions::call_function;
use crate::support::*;

/// Calls these functions of a component without a fallback and returns the failure reports.
async fn failure_reports_of_calls(
    name: &str,
    role: Role,
    calls: &[&'static str],
) -> Vec<(String, ComponentFailureReport)> {
    let port = Arc::new(FakeCapabilities::default());
    let job = open_job(
        &new_host(),
        &single_component_pipeline(&[role], &built_component(name)),
        &port,
    )
    .await
    .unwrap();
    for function in calls {
        call_function(&job, function).await.unwrap_err();
    }
    let records = port.log_records.lock();
    let reports = records.iter().filter_map(|record| match &record.kind {
        ComponentLogRecordKind::Failure(report) => {
            assert_eq!(record.component, name);
            Some((record.function.clone(), ComponentFailureReport::clone(report)))
        }
        ComponentLogRecordKind::Line { .. } => None,
    });
    reports.collect()
}

#[tokio::test]
async fn trap_report_has_the_source_location() {
    let reports = failure_reports_of_calls(
        "hostile-trap",
        Role::Routing,
        &["routing.page", "routing.failed", "routing.page"],
    )
    .await;
    let functions: Vec<&str> = reports.iter().map(|(function, _)| function.as_str()).collect();
    assert_eq!(functions, ["routing.page", "routing.failed", "routing.page"]);
    let digest = HEXLOWER.encode(&built_component("hostile-trap").digest);
    for (index, (function, report)) in (0..).zip(&reports) {
        let (interface, name) = function.split_once('.').unwrap();
        let export = format!("weir:pipeline/{interface}@0.1.0#{name}");
        assert!(
            report
                .backtrace
                .iter()
                .any(|frame| frame.function.contains(&export)),
            "{report:?}"
        );
        assert_eq!(report.call_index, index);
        assert_eq!(report.error.kind, "component-trap");
        assert_eq!(report.component_digest, digest);
        let message = report.guest_message.as_deref().unwrap();
        assert!(message.contains("the weir is broken"), "{message}");
        assert_eq!(report.limit, None);
        let frame = &report.backtrace[0];
        let source_file = frame.file.as_deref().unwrap();
        assert!(
            source_file.contains("hostile") && source_file.ends_with(".rs"),
            "{source_file}"
        );
        assert!(frame.line.unwrap() > 1, "{frame:?}");
        assert!(
            !source_file.contains("/home") && !source_file.contains("/root"),
            "{source_file}"
        );
    }
    // Equal inputs have equal hashes, different inputs have different ones.
    let request_digests: Vec<_> = reports
        .iter()
        .map(|(_, report)| report.request_digest.clone().unwrap())
        .collect();
    assert_eq!(request_digests[0], request_digests[2]);
    assert_ne!(request_digests[0], request_digests[1]);
    assert_eq!(request_digests[0].len(), 64);
}

#[tokio::test]
async fn failure_report_names_the_exceeded_limit() {
    for (name, function, limit) in [
        ("hostile-loop", "routing.page", "50 ms"),
        ("hostile-memory", "routing.page", "33554432 bytes of memory"),
        ("hostile-stack", "routing.page", "stack"),
        ("hostile-output", "routing.document", "1048576 bytes of output"),
    ] {
        let reports = failure_reports_of_calls(name, Role::Routing, &[function]).await;
        let [(_, report)] = reports.as_slice() else {
            panic!("{name}: {} reports", reports.len());
        };
        let reported_limit = report.limit.as_deref().unwrap();
        assert!(reported_limit.contains(limit), "{name}: {reported_limit}");
        assert!(report.backtrace.len() <= 20);
    }
}

#[tokio::test]
async fn an_invalid_decision_is_reported_without_a_backtrace() {
    let reports =
        failure_reports_of_calls("hostile-invalid-batching", Role::Batching, &["batching.plan"]).await;
    let (function, report) = &reports[0];
    assert_eq!(
        (function.as_str(), report.error.kind.as_str()),
        ("batching.plan", "component-invalid-decision")
    );
    assert!(report.backtrace.is_empty() && report.request_digest.is_some());
}

#[tokio::test]
async fn a_job_reports_a_hundred_failures_and_counts_all() {
    let port = Arc::new(FakeCapabilities::default());
    let pipeline = single_component_pipeline(&[Role::Progress], &built_component("hostile-trap"));
    let job = open_job(&new_host(), &pipeline, &port).await.unwrap();
    for _ in 0..110 {
        call_function(&job, "progress.observe").await.unwrap_err();
    }
    let records = port.log_records.lock();
    let failures = records
        .iter()
        .filter(|record| matches!(record.kind, ComponentLogRecordKind::Failure(_)));
    assert_eq!((failures.count(), job.stats().failed_calls), (100, 110));
}

#[tokio::test]
async fn log_lines_name_their_function_and_stop_at_the_limit() {
    let port = Arc::new(FakeCapabilities::default());
    let mut pipeline = single_component_pipeline(&[Role::Routing], &built_component("hostile-log"));
    pipeline.manifest.limits.call_timeout_millis = Some(1000);
    let job = open_job(&new_host(), &pipeline, &port).await.unwrap();
    call_function(&job, "routing.document").await.unwrap();
    call_function(&job, "routing.page").await.unwrap();
    let records = port.log_records.lock();
    assert_eq!(records.len(), 1001);
    for (index, record) in records.iter().enumerate() {
        let ComponentLogRecordKind::Line { level, message } = &record.kind else {
            panic!("{record:?}");
        };
        assert_eq!(
            (record.component.as_str(), record.function.as_str()),
            ("hostile-log", "routing.document")
        );
        if index < 1000 {
            assert_eq!((*level, message.len()), (LogLevel::Info, 1000));
        } else {
            assert_eq!(*level, LogLevel::Warn);
            assert!(message.contains("further lines are dropped"), "{message}");
        }
    }
}
