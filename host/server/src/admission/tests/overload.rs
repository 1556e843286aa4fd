//! When the host has too much to do.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use weir_core::settings::Settings;
use weir_core::tenancy::Scope;
use weir_core::usage::{Meter as _, Usage};

use crate::fakes::{Host, Refusal, form, measured, refusal};

fn assert_overloaded(refused: &Refusal) {
    assert_eq!(
        (refused.status, refused.kind.as_str(), refused.retry_after),
        (503, "overloaded", Some(10)),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_jobs_get_no_turn_takes_no_more() {
    let host = Host::with(Settings {
        server_max_wait_seconds: 60,
        ..Settings::default()
    });
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let (_, other) = host.tenant("b", &[Scope::Ingest]).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let job = host.submitted(&key, "1 pages").await;
    tokio::time::advance(Duration::from_secs(59)).await;
    host.submitted(&key, "2 pages").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    let refused = refusal(host.submit(&other, "1 pages").await).await;
    assert_overloaded(&refused);
    assert!(refused.detail.contains("waited for 61 s"), "{refused:?}");
    assert_eq!(measured(&recorder, r#"weir_shed_total{reason="turns"}"#), 1.0);

    // A tenant whose jobs may not begin does not make the host a busy one.
    host.app.admission.agree(a.clone(), 1.0, None, Some("suspended"));
    assert_eq!(host.submit(&other, "1 pages").await.status(), 202);
    host.app.admission.agree(a.clone(), 1.0, Some(0), None);
    assert_eq!(host.submit(&other, "2 pages").await.status(), 202);
    host.app.admission.reconsider(&a);
    assert_overloaded(&refusal(host.submit(&other, "3 pages").await).await);
    host.app.admission.cancel(&a, job);
    assert_eq!(host.submit(&other, "3 pages").await.status(), 202);
}

#[tokio::test(start_paused = true)]
async fn waiting_is_no_overload_where_it_is_not_to_be() {
    let host = Host::with(Settings {
        server_max_wait_seconds: 0,
        ..Settings::default()
    });
    let (_, key) = host.tenant("a", &[Scope::Ingest]).await;
    host.submitted(&key, "1 pages").await;
    tokio::time::advance(Duration::from_secs(1_000_000)).await;
    assert_eq!(host.submit(&key, "2 pages").await.status(), 202);
}

#[tokio::test]
async fn a_host_without_memory_takes_no_jobs_and_still_answers() {
    let with = |server_min_free_bytes| {
        Host::with(Settings {
            server_min_free_bytes,
            ..Settings::default()
        })
    };
    let host = with(u64::MAX);
    let (_, key) = host.tenant("a", &[Scope::Ingest, Scope::Read]).await;
    let refused = refusal(host.submit(&key, "1 pages").await).await;
    assert_overloaded(&refused);
    assert!(refused.detail.contains("MiB of memory"), "{refused:?}");
    assert_eq!(host.files.names(), Vec::<String>::new());
    assert_eq!(host.get("/v1/jobs", &key).await.status(), 200);
    for enough in [0, 1] {
        let host = with(enough);
        let (_, key) = host.tenant("a", &[Scope::Ingest]).await;
        assert_eq!(host.submit(&key, "1 pages").await.status(), 202);
    }
}

#[tokio::test]
async fn what_a_day_gives_is_given_once() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let (_, other) = host.tenant("b", &[Scope::Ingest]).await;
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
        host.quota(&a, quota, 10).await;
        let before = form(&[("file", None, quota)]);
        let answer = host.send(Host::submission(&key, before)).await;
        assert_eq!(answer.status(), 202, "{quota}");
        host.app.metering.used(&a, &used);
        let refused = refusal(host.submit(&key, "1 pages").await).await;
        assert_eq!((refused.status, refused.quota.as_deref()), (429, Some(quota)));
        let until_midnight = refused.retry_after.unwrap();
        assert!((1..=86_400).contains(&until_midnight), "{until_midnight}");
        assert_eq!(host.submit(&other, quota).await.status(), 202);
        host.quota(&a, quota, 0).await;
    }
}
