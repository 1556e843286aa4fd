//! Tests with connections to a real listener.

use std::net::SocketAddr;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use weir_core::StorageError;
use weir_core::tenancy::KeyScope;

use super::*;
use crate::fakes::TestHost;

/// A host that serves until the token is cancelled.
struct RunningServer {
    host: TestHost,
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<Result<(), StorageError>>,
}

impl RunningServer {
    async fn start(settings: Settings) -> Self {
        let settings = Settings {
            server_listen_address: "127.0.0.1:0".parse().unwrap(),
            ..settings
        };
        let (server, host) = TestHost::with_server(settings.clone());
        let listener = Listener::bind(&settings).await.unwrap();
        let (address, stop) = (listener.local_address().unwrap(), CancellationToken::new());
        let served = tokio::spawn(server.serve(listener, stop.clone().cancelled_owned()));
        // Wait until it serves: jobs that exist before would count as jobs of an earlier process.
        let mut probe = TcpStream::connect(address).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        probe.write_all(request).await.unwrap();
        probe.read_to_end(&mut Vec::new()).await.unwrap();
        Self {
            host,
            address,
            stop,
            served,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }
}

/// Reads until the host closes the connection.
async fn read_until_closed(mut stream: TcpStream) {
    // A connection reset also counts as closed.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn websocket_is_neither_evicted_nor_timed_out() {
    let serving = RunningServer::start(Settings {
        server_max_connections: 2,
        server_header_timeout_seconds: 1,
        ..Settings::default()
    })
    .await;
    let (host, address) = (&serving.host, serving.address);
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let mut request = format!("ws://{address}/v1/jobs/{job}/events/ws")
        .into_client_request()
        .unwrap();
    let key = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", key);
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = client_async(request, stream).await.unwrap();

    let first = TcpStream::connect(address).await.unwrap();
    let mut last = TcpStream::connect(address).await.unwrap();
    // The first is evicted for the last, and the last is closed after the idle timeout.
    read_until_closed(first).await;
    assert_eq!(last.read(&mut [0]).await.unwrap(), 0);
    host.commit_events(&tenant, job, 1, 1, true).await;
    assert!(socket.next().await.unwrap().unwrap().is_text());
    drop(socket);
    serving.stop().await;
}

#[tokio::test]
async fn idle_http2_connection_is_closed_gracefully() {
    let serving = RunningServer::start(Settings {
        server_header_timeout_seconds: 1,
        ..Settings::default()
    })
    .await;
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    // The fourth byte of a frame is its type (RFC 9113, 4.1).
    let (mut kinds, mut rest) = (Vec::new(), received.as_slice());
    while let [a, b, c, kind, _, _, _, _, _, behind @ ..] = rest {
        kinds.push(*kind);
        rest = &behind[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    assert!(kinds.contains(&7), "no GOAWAY: {kinds:?}");
    serving.stop().await;
}

#[test]
fn connections_take_at_most_half_of_the_descriptors() {
    assert_eq!(effective_max_connections(4096, None), 4096);
    assert_eq!(effective_max_connections(4096, Some(20_000)), 4096);
    assert_eq!(effective_max_connections(4096, Some(1024)), 512);
    assert_eq!(effective_max_connections(4096, Some(1)), 1);
}

/// Sends a request on an open connection and returns the first 12 bytes of the response.
async fn request_liveness(stream: &mut TcpStream) -> Vec<u8> {
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut received = vec![0; 12];
    let read = stream.read(&mut received).await.unwrap_or(0);
    received.truncate(read);
    received
}

#[tokio::test]
async fn address_setting_limits_connections_of_one_address() {
    for (limit, first_is_kept) in [(1, false), (0, true)] {
        let serving = RunningServer::start(Settings {
            server_max_connections_per_address: limit,
            ..Settings::default()
        })
        .await;
        let mut first = TcpStream::connect(serving.address).await.unwrap();
        let mut second = TcpStream::connect(serving.address).await.unwrap();
        assert_eq!(request_liveness(&mut second).await, b"HTTP/1.1 200");
        if first_is_kept {
            assert_eq!(request_liveness(&mut first).await, b"HTTP/1.1 200");
            drop((first, second));
        } else {
            let began = Instant::now();
            read_until_closed(first).await;
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "the connection was closed by the idle timeout"
            );
        }
        serving.stop().await;
    }
}
