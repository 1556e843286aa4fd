//! Tests of event streams over WebSocket, with a client of another library than axum.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use weir_control::testing::TestRng;
use weir_core::JobId;
use weir_core::tenancy::KeyScope;

use crate::fakes::TestHost;

async fn start_server(host: &TestHost) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = host.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn connect_socket(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<(WebSocketStream<TcpStream>, Option<String>), u16> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, response)) => {
            let protocol = response.headers().get("sec-websocket-protocol");
            Ok((socket, protocol.map(|p| p.to_str().unwrap().to_owned())))
        }
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

fn bearer_header(key: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {key}"))]
}

async fn next_event(socket: &mut WebSocketStream<TcpStream>) -> Option<serde_json::Value> {
    loop {
        match socket.next().await?.unwrap() {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(frame) => {
                assert_eq!(frame.unwrap().code, CloseCode::Normal);
                return None;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn events_come_as_json_and_the_socket_closes_with_the_job() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let address = start_server(&host).await;
    let path = format!("/v1/jobs/{job}/events/ws");
    host.commit_events(&tenant, job, 1, 5, false).await;
    let (mut socket, protocol) = connect_socket(address, &path, &bearer_header(&key))
        .await
        .unwrap();
    assert_eq!(protocol, None);
    for seq in 1..=5 {
        assert_eq!(next_event(&mut socket).await.unwrap()["seq"], seq);
    }
    host.commit_events(&tenant, job, 6, 7, true).await;
    assert_eq!(next_event(&mut socket).await.unwrap()["type"], "page-done");
    assert_eq!(next_event(&mut socket).await.unwrap()["type"], "job-ended");
    assert_eq!(next_event(&mut socket).await, None);
    // The client has received all events: the socket closes at once.
    let (mut socket, _) = connect_socket(address, &format!("{path}?after=7"), &bearer_header(&key))
        .await
        .unwrap();
    assert_eq!(next_event(&mut socket).await, None);
    host.app.event_stream_limiter.wait_until_closed().await;
    assert_eq!(host.app.event_stream_limiter.open_stream_count(), 0);
}

#[tokio::test]
async fn a_browser_sends_its_key_as_a_subprotocol_that_is_not_repeated() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    host.commit_events(&tenant, job, 1, 1, true).await;
    let address = start_server(&host).await;
    let path = format!("/v1/jobs/{job}/events/ws");
    let offered = [(
        "sec-websocket-protocol",
        format!("weir.events, weir.bearer.{key}"),
    )];
    let (mut socket, protocol) = connect_socket(address, &path, &offered).await.unwrap();
    assert_eq!(protocol.as_deref(), Some("weir.events"));
    assert_eq!(next_event(&mut socket).await.unwrap()["type"], "job-ended");
}

#[tokio::test]
async fn unauthorized_request_is_refused_before_the_upgrade() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (_, foreign) = host.create_tenant("b", &[KeyScope::Read]).await;
    let (_, no_reader) = host.create_tenant("c", &[KeyScope::Ingest]).await;
    let job = host.create_running_job(&tenant).await;
    let address = start_server(&host).await;
    let path = format!("/v1/jobs/{job}/events/ws");
    let none = connect_socket(address, &path, &[]).await.err();
    assert_eq!(none, Some(401));
    let wrong = [(
        "sec-websocket-protocol",
        "weir.events, weir.bearer.weir_0_0".to_owned(),
    )];
    assert_eq!(connect_socket(address, &path, &wrong).await.err(), Some(401));
    assert_eq!(
        connect_socket(address, &path, &bearer_header(&foreign))
            .await
            .err(),
        Some(404)
    );
    assert_eq!(
        connect_socket(address, &path, &bearer_header(&no_reader))
            .await
            .err(),
        Some(403)
    );
    let unknown = format!("/v1/jobs/{}/events/ws", JobId::new());
    assert_eq!(
        connect_socket(address, &unknown, &bearer_header(&key))
            .await
            .err(),
        Some(404)
    );
    assert_eq!(
        connect_socket(address, &format!("{path}?after=9"), &bearer_header(&key))
            .await
            .err(),
        Some(409)
    );
}

#[tokio::test]
async fn a_socket_resumes_after_the_number_it_names() {
    let host = Arc::new(TestHost::new());
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let address = start_server(&host).await;
    let writer = {
        let (host, tenant) = (Arc::clone(&host), tenant.clone());
        tokio::spawn(async move {
            for group in 0..50 {
                host.commit_events(&tenant, job, 1 + group * 10, 10 + group * 10, group == 49)
                    .await;
                tokio::task::yield_now().await;
            }
        })
    };
    let (mut last, mut dice) = (0, TestRng::new(5));
    while last < 500 {
        let path = format!("/v1/jobs/{job}/events/ws?after={last}");
        let (mut socket, _) = connect_socket(address, &path, &bearer_header(&key))
            .await
            .unwrap();
        for _ in 0..=dice.next_below(40) {
            let Some(event) = next_event(&mut socket).await else {
                break;
            };
            last += 1;
            assert_eq!(event["seq"], last);
        }
        if dice.next_below(2) == 0 {
            // Half of the clients send a close frame.
            let _ = socket.send(Message::Close(None)).await;
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn client_that_sends_too_much_is_disconnected() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let address = start_server(&host).await;
    let (mut socket, _) = connect_socket(
        address,
        &format!("/v1/jobs/{job}/events/ws"),
        &bearer_header(&key),
    )
    .await
    .unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    socket.send(Message::text("x".repeat(100_000))).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    while host.app.event_stream_limiter.open_stream_count() > 0 {
        tokio::task::yield_now().await;
    }
}
