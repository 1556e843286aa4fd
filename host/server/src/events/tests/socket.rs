//! The same events over a WebSocket, with a client that is not axum's.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use weir_core::JobId;
use weir_core::tenancy::Scope;

use super::Dice;
use crate::fakes::Host;

async fn serve(host: &Host) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = host.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn connect(
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

fn bearer(key: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {key}"))]
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<serde_json::Value> {
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
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let address = serve(&host).await;
    let path = format!("/v1/jobs/{job}/events/ws");
    host.events(&tenant, job, 1, 5, false).await;
    let (mut socket, protocol) = connect(address, &path, &bearer(&key)).await.unwrap();
    assert_eq!(protocol, None);
    for seq in 1..=5 {
        assert_eq!(next(&mut socket).await.unwrap()["seq"], seq);
    }
    host.events(&tenant, job, 6, 7, true).await;
    assert_eq!(next(&mut socket).await.unwrap()["type"], "page-done");
    assert_eq!(next(&mut socket).await.unwrap()["type"], "job-ended");
    assert_eq!(next(&mut socket).await, None);
    // It has all been seen: the socket closes at once.
    let (mut socket, _) = connect(address, &format!("{path}?after=7"), &bearer(&key))
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await, None);
    host.app.streams.ended().await;
    assert_eq!(host.app.streams.open(), 0);
}

#[tokio::test]
async fn a_browser_sends_its_key_as_a_subprotocol_that_is_not_repeated() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    host.events(&tenant, job, 1, 1, true).await;
    let address = serve(&host).await;
    let path = format!("/v1/jobs/{job}/events/ws");
    let offered = [(
        "sec-websocket-protocol",
        format!("weir.events, weir.bearer.{key}"),
    )];
    let (mut socket, protocol) = connect(address, &path, &offered).await.unwrap();
    assert_eq!(protocol.as_deref(), Some("weir.events"));
    assert_eq!(next(&mut socket).await.unwrap()["type"], "job-ended");
}

#[tokio::test]
async fn who_may_not_is_refused_before_there_is_a_socket() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let (_, foreign) = host.tenant("b", &[Scope::Read]).await;
    let (_, no_reader) = host.tenant("c", &[Scope::Ingest]).await;
    let job = host.job(&tenant).await;
    let address = serve(&host).await;
    let path = format!("/v1/jobs/{job}/events/ws");
    let none = connect(address, &path, &[]).await.err();
    assert_eq!(none, Some(401));
    let wrong = [(
        "sec-websocket-protocol",
        "weir.events, weir.bearer.weir_0_0".to_owned(),
    )];
    assert_eq!(connect(address, &path, &wrong).await.err(), Some(401));
    assert_eq!(connect(address, &path, &bearer(&foreign)).await.err(), Some(404));
    assert_eq!(
        connect(address, &path, &bearer(&no_reader)).await.err(),
        Some(403)
    );
    let unknown = format!("/v1/jobs/{}/events/ws", JobId::new());
    assert_eq!(connect(address, &unknown, &bearer(&key)).await.err(), Some(404));
    assert_eq!(
        connect(address, &format!("{path}?after=9"), &bearer(&key))
            .await
            .err(),
        Some(409)
    );
}

#[tokio::test]
async fn a_socket_resumes_after_the_number_it_names() {
    let host = Arc::new(Host::new());
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let address = serve(&host).await;
    let writer = {
        let (host, tenant) = (Arc::clone(&host), tenant.clone());
        tokio::spawn(async move {
            for group in 0..50 {
                host.events(&tenant, job, 1 + group * 10, 10 + group * 10, group == 49)
                    .await;
                tokio::task::yield_now().await;
            }
        })
    };
    let (mut last, mut dice) = (0, Dice(5));
    while last < 500 {
        let path = format!("/v1/jobs/{job}/events/ws?after={last}");
        let (mut socket, _) = connect(address, &path, &bearer(&key)).await.unwrap();
        for _ in 0..=dice.roll(40) {
            let Some(event) = next(&mut socket).await else {
                break;
            };
            last += 1;
            assert_eq!(event["seq"], last);
        }
        if dice.roll(2) == 0 {
            // Half of them say goodbye.
            let _ = socket.send(Message::Close(None)).await;
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_client_that_talks_too_much_is_left() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let address = serve(&host).await;
    let (mut socket, _) = connect(address, &format!("/v1/jobs/{job}/events/ws"), &bearer(&key))
        .await
        .unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    socket.send(Message::text("x".repeat(100_000))).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    while host.app.streams.open() > 0 {
        tokio::task::yield_now().await;
    }
}
