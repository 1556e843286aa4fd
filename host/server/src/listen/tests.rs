//! Connections over a real listener.

use std::net::SocketAddr;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use weir_core::StorageError;
use weir_core::tenancy::Scope;

use super::*;
use crate::fakes::Host;

/// A host that serves until the token is cancelled.
struct Serving {
    host: Host,
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<Result<(), StorageError>>,
}

impl Serving {
    async fn start(settings: Settings) -> Self {
        let settings = Settings {
            server_listen: "127.0.0.1:0".parse().unwrap(),
            ..settings
        };
        let (server, host) = Host::serving(settings.clone());
        let listener = Listener::bind(&settings).await.unwrap();
        let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
        let served = tokio::spawn(server.serve(listener, stop.clone().cancelled_owned()));
        // Jobs that are there before it serves would be those of an earlier process.
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
async fn until_closed(mut stream: TcpStream) {
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn websocket_is_kept_under_pressure_and_beyond_the_deadline() {
    let serving = Serving::start(Settings {
        server_connections: 2,
        server_header_seconds: 1,
        ..Settings::default()
    })
    .await;
    let (host, address) = (&serving.host, serving.address);
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let mut request = format!("ws://{address}/v1/jobs/{job}/events/ws")
        .into_client_request()
        .unwrap();
    let key = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", key);
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = client_async(request, stream).await.unwrap();

    let first = TcpStream::connect(address).await.unwrap();
    let mut last = TcpStream::connect(address).await.unwrap();
    // The first gives way to the last, and the last goes when its time is over.
    until_closed(first).await;
    assert_eq!(last.read(&mut [0]).await.unwrap(), 0);
    host.events(&tenant, job, 1, 1, true).await;
    assert!(socket.next().await.unwrap().unwrap().is_text());
    drop(socket);
    serving.stop().await;
}

#[tokio::test]
async fn idle_client_of_http2_is_told_before_it_is_closed() {
    let serving = Serving::start(Settings {
        server_header_seconds: 1,
        ..Settings::default()
    })
    .await;
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    // The kind of a frame is its fourth byte (RFC 9113, 4.1).
    let (mut kinds, mut rest) = (Vec::new(), said.as_slice());
    while let [a, b, c, kind, _, _, _, _, _, behind @ ..] = rest {
        kinds.push(*kind);
        rest = &behind[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    assert!(kinds.contains(&7), "no GOAWAY: {kinds:?}");
    serving.stop().await;
}

#[test]
fn connections_take_at_most_half_of_the_descriptors() {
    assert_eq!(most_connections(4096, None), 4096);
    assert_eq!(most_connections(4096, Some(20_000)), 4096);
    assert_eq!(most_connections(4096, Some(1024)), 512);
    assert_eq!(most_connections(4096, Some(1)), 1);
}

/// The first bytes of the answer to a request on an open connection.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 12];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    answer.truncate(read);
    answer
}

#[tokio::test]
async fn address_setting_limits_connections_of_one_address() {
    for (limit, first_is_kept) in [(1, false), (0, true)] {
        let serving = Serving::start(Settings {
            server_address_connections: limit,
            ..Settings::default()
        })
        .await;
        let mut first = TcpStream::connect(serving.address).await.unwrap();
        let mut second = TcpStream::connect(serving.address).await.unwrap();
        assert_eq!(answer(&mut second).await, b"HTTP/1.1 200");
        if first_is_kept {
            assert_eq!(answer(&mut first).await, b"HTTP/1.1 200");
            drop((first, second));
        } else {
            let began = Instant::now();
            until_closed(first).await;
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "it ended for another reason"
            );
        }
        serving.stop().await;
    }
}
