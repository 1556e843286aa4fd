//! How streams begin, beat, are refused, dropped and ended.

use std::time::Duration;

use axum::http::{StatusCode, header};
use weir_core::JobId;
use weir_core::settings::Settings;
use weir_core::tenancy::{Registry as _, Scope, TenantState};

use super::Client;
use crate::fakes::{Host, json};

#[tokio::test]
async fn an_event_on_the_wire() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    host.events(&tenant, job, 1, 2, true).await;
    let answer = host.get(&format!("/v1/jobs/{job}/events"), &key).await;
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let document = weir_core::DocumentId::of(b"document");
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
async fn what_cannot_be_followed_is_refused() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let (_, foreign) = host.tenant("b", &[Scope::Read]).await;
    let (_, no_reader) = host.tenant("c", &[Scope::Ingest]).await;
    let job = host.job(&a).await;
    host.events(&a, job, 1, 3, false).await;
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
        let answer = host.get(&path, key).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(json(answer).await["status"], status.as_u16());
    }
    assert_eq!(host.app.streams.open(), 0);
}

#[tokio::test]
async fn streams_are_bounded_and_places_come_back() {
    let settings = Settings {
        server_streams: 3,
        server_tenant_streams: 2,
        ..Settings::default()
    };
    let host = Host::with(settings);
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let (_, other) = host.tenant("b", &[Scope::Read]).await;
    let job = host.job(&a).await;
    let path = format!("/v1/jobs/{job}/events");
    let first = host.get(&path, &key).await;
    let _second = host.get("/v1/events", &key).await;
    let refused = host.get(&path, &key).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(json(refused).await["quota"], "streams");
    let _third = host.get("/v1/events", &other).await;
    assert_eq!(
        host.get("/v1/events", &other).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    drop(first);
    while host.app.streams.open() > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.get(&path, &key).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_dropped_and_holds_nobody_up() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let path = format!("/v1/jobs/{job}/events");
    let stuck = host.get(&path, &key).await;
    let mut quick = Client::new(host.get(&path, &key).await);
    let began = tokio::time::Instant::now();
    for group in 0..100 {
        host.events(&tenant, job, 1 + group * 50, 50 + group * 50, false)
            .await;
    }
    for id in 1..=5000 {
        assert_eq!(quick.soon().await.unwrap().id, id);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "the quick one waited");
    assert_eq!(host.app.streams.open(), 2);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(host.app.streams.open(), 1, "server.stall_seconds are over");
    // What it was sent before can still be read, and from there it goes on.
    let mut stuck = Client::new(stuck);
    let mut last = 0;
    while let Some(event) = stuck.soon().await {
        assert_eq!(event.id, last + 1);
        last = event.id;
    }
    assert!(last < 500, "no more than a few chunks were kept for it: {last}");
    let mut again = Client::new(host.get(&format!("{path}?after={last}"), &key).await);
    assert_eq!(again.soon().await.unwrap().id, last + 1);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_beats() {
    let settings = Settings {
        server_heartbeat_seconds: 3,
        ..Settings::default()
    };
    let host = Host::with(settings);
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let mut client = Client::new(host.get(&format!("/v1/jobs/{job}/events"), &key).await);
    assert!(
        tokio::time::timeout(Duration::from_secs(10), client.next())
            .await
            .is_err()
    );
    assert_eq!(client.beats, 3);
    host.events(&tenant, job, 1, 1, false).await;
    assert_eq!(client.soon().await.unwrap().id, 1);
    assert_eq!(
        client.empty, 0,
        "an empty line behind a beat is an event to some clients"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_key_does() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let mut client = Client::new(host.get(&format!("/v1/jobs/{job}/events"), &key).await);
    let mut record = host.memory.keys(&tenant).await.unwrap().remove(0);
    record.revoked_millis = Some(1);
    host.memory.put_key(&record).await.unwrap();
    assert_eq!(client.next().await, None);
    let (_, key) = host.tenant("a", &[Scope::Read]).await;
    let mut client = Client::new(host.get("/v1/events", &key).await);
    host.change(&tenant, |tenant| tenant.state = TenantState::Suspended)
        .await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn streams_end_when_the_host_stops() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let mut client = Client::new(host.get(&format!("/v1/jobs/{job}/events"), &key).await);
    host.events(&tenant, job, 1, 1, false).await;
    assert_eq!(client.soon().await.unwrap().id, 1);
    host.app.stopping.cancel();
    assert_eq!(client.soon().await, None);
    host.app.streams.ended().await;
    assert_eq!(host.app.streams.open(), 0);
}
