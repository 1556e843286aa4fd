//! Tests of refusals on an overloaded host.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use weir_control::admission::CancelOutcome;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_core::usage::{Usage, UsageMeter as _};

use crate::fakes::{ProblemResponse, TestHost, metric_value, multipart_form, parse_problem};

fn assert_overloaded(refused: &ProblemResponse) {
    assert_eq!(
        (refused.status, refused.kind.as_str(), refused.retry_after),
        (503, "overloaded", Some(10)),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn host_refuses_jobs_while_queued_jobs_do_not_start() {
    let host = TestHost::with_settings(Settings {
        server_overload_queue_wait_seconds: 60,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (_, other) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let job = host.submit_accepted_file(&key, "1 pages").await;
    tokio::time::advance(Duration::from_secs(59)).await;
    host.submit_accepted_file(&key, "2 pages").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    let refused = parse_problem(host.submit_file(&other, "1 pages").await).await;
    assert_overloaded(&refused);
    assert!(refused.detail.contains("waited for 61 s"), "{refused:?}");
    assert_eq!(
        metric_value(
            &recorder,
            r#"weir_job_submissions_shed_total{reason="queue-wait"}"#
        ),
        1.0
    );

    // A tenant whose jobs may not start does not count as overload.
    host.control
        .admission
        .set_tenant_terms(a.clone(), 1.0, None, Some("suspended"));
    assert_eq!(host.submit_file(&other, "1 pages").await.status(), 202);
    host.control
        .admission
        .set_tenant_terms(a.clone(), 1.0, Some(0), None);
    assert_eq!(host.submit_file(&other, "2 pages").await.status(), 202);
    host.control.admission.invalidate_tenant_terms(&a);
    assert_overloaded(&parse_problem(host.submit_file(&other, "3 pages").await).await);
    host.control.admission.cancel_job(&a, job);
    assert_eq!(host.submit_file(&other, "3 pages").await.status(), 202);
}

#[tokio::test(start_paused = true)]
async fn zero_max_wait_disables_the_overload_check() {
    let host = TestHost::with_settings(Settings {
        server_overload_queue_wait_seconds: 0,
        ..Settings::default()
    });
    let (_, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    host.submit_accepted_file(&key, "1 pages").await;
    tokio::time::advance(Duration::from_secs(1_000_000)).await;
    assert_eq!(host.submit_file(&key, "2 pages").await.status(), 202);
}

#[tokio::test]
async fn a_host_without_memory_takes_no_jobs_and_still_answers() {
    let with = |server_min_free_memory_bytes| {
        TestHost::with_settings(Settings {
            server_min_free_memory_bytes,
            ..Settings::default()
        })
    };
    let host = with(u64::MAX);
    let (_, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let refused = parse_problem(host.submit_file(&key, "1 pages").await).await;
    assert_overloaded(&refused);
    assert!(refused.detail.contains("MiB of memory"), "{refused:?}");
    assert_eq!(host.uploads.file_names(), Vec::<String>::new());
    assert_eq!(host.send_get("/v1/jobs", &key).await.status(), 200);
    for enough in [0, 1] {
        let host = with(enough);
        let (_, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
        assert_eq!(host.submit_file(&key, "1 pages").await.status(), 202);
    }
}

#[tokio::test]
async fn exhausted_daily_quota_refuses_submissions() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (_, other) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    for (quota, used) in [
        (
            "pages_per_day",
            Usage {
                pages: 10,
                ..Usage::default()
            },
        ),
        (
            "inference_millis_per_day",
            Usage {
                inference_micros: 10_000,
                ..Usage::default()
            },
        ),
        (
            "guest_millis_per_day",
            Usage {
                guest_micros: 10_000,
                ..Usage::default()
            },
        ),
    ] {
        host.set_quota(&a, quota, 10).await;
        let before = multipart_form(&[("file", None, quota)]);
        let response = host.send(TestHost::build_submission(&key, before)).await;
        assert_eq!(response.status(), 202, "{quota}");
        host.control.usage_recorder.record_usage(&a, &used);
        let refused = parse_problem(host.submit_file(&key, "1 pages").await).await;
        assert_eq!((refused.status, refused.quota.as_deref()), (429, Some(quota)));
        let until_midnight = refused.retry_after.unwrap();
        assert!((1..=86_400).contains(&until_midnight), "{until_midnight}");
        assert_eq!(host.submit_file(&other, quota).await.status(), 202);
        host.set_quota(&a, quota, 0).await;
    }
}

#[tokio::test]
async fn full_queue_names_its_owner_and_the_retry_time() {
    let host = TestHost::with_settings(Settings {
        server_max_queued_jobs: 3,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (_, other) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    host.set_quota(&a, "queued_jobs", 2).await;
    let first = host.submit_accepted_file(&key, "1 pages 1").await;
    host.submit_accepted_file(&key, "1 pages 2").await;
    let refused = parse_problem(host.submit_file(&key, "1 pages 3").await).await;
    assert_eq!(
        (refused.status, refused.retry_after),
        (429, Some(5)),
        "{refused:?}"
    );
    assert_eq!(refused.quota.as_deref(), Some("queued_jobs"));
    host.submit_accepted_file(&other, "1 pages").await;
    let refused = parse_problem(host.submit_file(&other, "1 pages").await).await;
    assert_eq!(
        (refused.status, refused.kind.as_str(), refused.retry_after),
        (503, "overloaded", Some(10))
    );
    assert_eq!(refused.quota, None);
    assert!(matches!(
        host.control.admission.cancel_job(&a, first),
        CancelOutcome::RemovedFromQueue(_)
    ));
    assert_eq!(host.submit_file(&key, "1 pages 3").await.status(), 202);
}
