//! Tests of the start, the heartbeats, the refusal and the end of event streams.

use std::time::Duration;

use axum::http::{StatusCode, header};
use weir_core::JobId;
use weir_core::settings::Settings;
use weir_core::tenancy::{KeyScope, TenantState, TenantStore as _};

use super::SseClient;
use crate::fakes::{TestHost, parse_json};

#[tokio::test]
async fn events_have_the_documented_wire_format() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    host.commit_events(&tenant, job, 1, 2, true).await;
    let response = host.send_get(&format!("/v1/jobs/{job}/events"), &key).await;
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let document = weir_core::DocumentId::from_content(b"document");
    let wanted = format!(
        "retry: 1000\n\
         id: 1\nevent: page-done\ndata: {{\"seq\":1,\"job\":\"{job}\",\"document\":\"{document}\",\"at_millis\":1,\
         \"type\":\"page-done\",\"page\":1,\"searchable\":true,\"passages\":1}}\n\n\
         id: 2\nevent: job-ended\ndata: {{\"seq\":2,\"job\":\"{job}\",\"document\":\"{document}\",\"at_millis\":2,\
         \"type\":\"job-ended\",\"state\":\"done\"}}\n\n"
    );
    assert_eq!(std::str::from_utf8(&body).unwrap(), wanted);
}

#[tokio::test]
async fn invalid_stream_requests_are_refused() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (_, foreign) = host.create_tenant("b", &[KeyScope::Read]).await;
    let (_, no_reader) = host.create_tenant("c", &[KeyScope::Ingest]).await;
    let job = host.create_running_job(&a).await;
    host.commit_events(&a, job, 1, 3, false).await;
    let path = format!("/v1/jobs/{job}/events");
    for (path, key, status) in [
        (path.clone(), &foreign, StatusCode::NOT_FOUND),
        (format!("{path}/ws"), &foreign, StatusCode::NOT_FOUND),
        (
            format!("/v1/jobs/{}/events", JobId::new()),
            &key,
            StatusCode::NOT_FOUND,
        ),
        ("/v1/jobs/none/events".into(), &key, StatusCode::NOT_FOUND),
        (format!("{path}?after=4"), &key, StatusCode::CONFLICT),
        (
            format!("{path}?after={}", u64::MAX),
            &key,
            StatusCode::BAD_REQUEST,
        ),
        (format!("{path}?after=x"), &key, StatusCode::BAD_REQUEST),
        (format!("{path}?since=1"), &key, StatusCode::BAD_REQUEST),
        (path.clone(), &no_reader, StatusCode::FORBIDDEN),
        ("/v1/events".into(), &no_reader, StatusCode::FORBIDDEN),
        (path.clone(), &"weir_0_0".to_owned(), StatusCode::UNAUTHORIZED),
        (format!("{path}/ws"), &key, StatusCode::UPGRADE_REQUIRED),
    ] {
        let response = host.send_get(&path, key).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(parse_json(response).await["status"], status.as_u16());
    }
    assert_eq!(host.app.event_stream_limiter.open_stream_count(), 0);
}

#[tokio::test]
async fn streams_are_limited_and_closed_streams_free_their_permit() {
    let settings = Settings {
        server_max_event_streams: 3,
        server_max_event_streams_per_tenant: 2,
        ..Settings::default()
    };
    let host = TestHost::with_settings(settings);
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (_, other) = host.create_tenant("b", &[KeyScope::Read]).await;
    let job = host.create_running_job(&a).await;
    let path = format!("/v1/jobs/{job}/events");
    let first = host.send_get(&path, &key).await;
    let _second = host.send_get("/v1/events", &key).await;
    let refused = host.send_get(&path, &key).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(parse_json(refused).await["quota"], "streams");
    let _third = host.send_get("/v1/events", &other).await;
    assert_eq!(
        host.send_get("/v1/events", &other).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    drop(first);
    while host.app.event_stream_limiter.open_stream_count() > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.send_get(&path, &key).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_is_dropped_and_delays_nobody() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let path = format!("/v1/jobs/{job}/events");
    let stuck = host.send_get(&path, &key).await;
    let mut quick = SseClient::new(host.send_get(&path, &key).await);
    let began = tokio::time::Instant::now();
    for group in 0..100 {
        host.commit_events(&tenant, job, 1 + group * 50, 50 + group * 50, false)
            .await;
    }
    for id in 1..=5000 {
        assert_eq!(quick.next_event_within_timeout().await.unwrap().id, id);
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "the fast client was delayed"
    );
    assert_eq!(host.app.event_stream_limiter.open_stream_count(), 2);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(
        host.app.event_stream_limiter.open_stream_count(),
        1,
        "server.transfer_idle_timeout_seconds have passed"
    );
    // The client can still read what was sent before, and resume from there.
    let mut stuck = SseClient::new(stuck);
    let mut last = 0;
    while let Some(event) = stuck.next_event_within_timeout().await {
        assert_eq!(event.id, last + 1);
        last = event.id;
    }
    assert!(last < 500, "only a few chunks may be buffered for it: {last}");
    let mut again = SseClient::new(host.send_get(&format!("{path}?after={last}"), &key).await);
    assert_eq!(again.next_event_within_timeout().await.unwrap().id, last + 1);
}

#[tokio::test(start_paused = true)]
async fn quiet_stream_sends_heartbeats() {
    let settings = Settings {
        server_heartbeat_interval_seconds: 3,
        ..Settings::default()
    };
    let host = TestHost::with_settings(settings);
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let mut client = SseClient::new(host.send_get(&format!("/v1/jobs/{job}/events"), &key).await);
    assert!(
        tokio::time::timeout(Duration::from_secs(10), client.next_event())
            .await
            .is_err()
    );
    assert_eq!(client.comments, 3);
    host.commit_events(&tenant, job, 1, 1, false).await;
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, 1);
    assert_eq!(
        client.empty_lines, 0,
        "an empty line after a heartbeat is an event to some clients"
    );
}

#[tokio::test(start_paused = true)]
async fn stream_ends_when_its_key_is_no_longer_valid() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let mut client = SseClient::new(host.send_get(&format!("/v1/jobs/{job}/events"), &key).await);
    let mut record = host.store.list_api_keys(&tenant).await.unwrap().remove(0);
    record.revoked_millis = Some(1);
    host.store.put_api_key(&record).await.unwrap();
    assert_eq!(client.next_event().await, None);
    let (_, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let mut client = SseClient::new(host.send_get("/v1/events", &key).await);
    host.change_tenant(&tenant, |tenant| tenant.state = TenantState::Suspended)
        .await;
    assert_eq!(client.next_event().await, None);
}

#[tokio::test]
async fn streams_end_when_the_host_stops() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let mut client = SseClient::new(host.send_get(&format!("/v1/jobs/{job}/events"), &key).await);
    host.commit_events(&tenant, job, 1, 1, false).await;
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, 1);
    host.control.stop_signal.cancel();
    assert_eq!(client.next_event_within_timeout().await, None);
    host.app.event_stream_limiter.wait_until_closed().await;
    assert_eq!(host.app.event_stream_limiter.open_stream_count(), 0);
}
