//! Thousands of connections from clients that never finish a request, from one address or from many.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A way to keep a connection open without giving the host any work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionAttack {
    /// Sends nothing.
    Silent,
    /// Sends the HTTP/2 preface and then nothing.
    Http2Preface,
    /// Sends the first half of a TLS handshake.
    HalfHandshake,
    /// Sends headers one byte at a time.
    TrickledHeaders,
    /// Sends one request and keeps the connection open.
    KeepAlive,
    /// Sends an HTTP/2 request with a flow-control window of 0, so that the host may not send a byte of the response.
    ClosedWindow,
}

impl ConnectionAttack {
    pub const ALL: [Self; 6] = [
        Self::Silent,
        Self::Http2Preface,
        Self::HalfHandshake,
        Self::TrickledHeaders,
        Self::KeepAlive,
        Self::ClosedWindow,
    ];

    /// Returns the bytes that each connection sends first.
    fn opening_bytes(self) -> Vec<u8> {
        match self {
            Self::Silent => Vec::new(),
            Self::Http2Preface => {
                [HTTP2_PREFACE, &encode_http2_frame(SETTINGS_FRAME_TYPE, 0, 0, &[])].concat()
            }
            // A handshake record that announces 512 bytes, followed by only some of them.
            Self::HalfHandshake => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 40]].concat(),
            Self::TrickledHeaders => b"GET /healthz HTTP/1.1\r\nHost: weir\r\nX-Filler: ".to_vec(),
            Self::KeepAlive => b"GET /healthz HTTP/1.1\r\nHost: weir\r\n\r\n".to_vec(),
            Self::ClosedWindow => {
                // INITIAL_WINDOW_SIZE is 0 (RFC 9113, 6.5.2).
                let settings = encode_http2_frame(SETTINGS_FRAME_TYPE, 0, 0, &[0, 4, 0, 0, 0, 0]);
                // GET, http, and the path and authority as literals (RFC 7541, appendix A).
                let path = b"/openapi.json";
                let head = [
                    &[0x82, 0x86, 0x04, path.len() as u8],
                    &path[..],
                    &[0x41, 4],
                    b"weir",
                ]
                .concat();
                [
                    HTTP2_PREFACE,
                    &settings,
                    &encode_http2_frame(HEADERS_FRAME_TYPE, 5, 1, &head),
                ]
                .concat()
            }
        }
    }
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS_FRAME_TYPE: u8 = 1;
const SETTINGS_FRAME_TYPE: u8 = 4;

fn encode_http2_frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u8;
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], content].concat()
}

/// A growing set of open connections that all use the same attack.
pub struct ConnectionFlood {
    attack: ConnectionAttack,
    address: SocketAddr,
    source_addresses: Vec<Ipv4Addr>,
    streams: Vec<TcpStream>,
}

impl ConnectionFlood {
    /// Creates an empty set and raises the process's limit of open files. Connections use the source addresses in turn.
    pub fn new(attack: ConnectionAttack, address: SocketAddr, sources: Vec<Ipv4Addr>) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, raised).unwrap();
        Self {
            attack,
            address,
            source_addresses: sources,
            streams: Vec::new(),
        }
    }

    /// Opens `count` more connections; [`ConnectionAttack::TrickledHeaders`] also sends a byte on each open one. Returns whether all were
    /// opened. The accept queue of a host that accepts nothing fills up.
    pub fn open_connections(&mut self, count: usize) -> bool {
        if self.attack == ConnectionAttack::TrickledHeaders {
            for stream in &mut self.streams {
                // The host may have closed it.
                let _ = stream.write_all(b"a");
            }
        }
        let opening = self.attack.opening_bytes();
        let mut failures = 0;
        for n in 0..count {
            if n % 50 == 0 {
                // Bursts larger than a usual accept queue would fail on a healthy host too.
                std::thread::sleep(Duration::from_millis(5));
            }
            let source = self.source_addresses[self.streams.len() % self.source_addresses.len()];
            let Some(mut stream) = connect_from(source, self.address) else {
                failures += 1;
                if failures == 3 {
                    return false;
                }
                continue;
            };
            let _ = stream.write_all(&opening);
            self.streams.push(stream);
        }
        failures == 0
    }
}

/// Connects from a local address. Returns `None` if this fails or takes more than a second.
fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Option<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_secs(1))).unwrap();
    rustix::net::connect(&socket, &address).ok()?;
    Some(socket.into())
}

/// Measures `GET /healthz` on a new connection, over TLS if `tls` is given. Returns `None` without a response within `timeout`.
pub fn measure_health_latency(
    address: SocketAddr,
    tls: Option<&std::sync::Arc<rustls::ClientConfig>>,
    timeout: Duration,
) -> Option<Duration> {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n";
    let began = Instant::now();
    let stream = TcpStream::connect_timeout(&address, timeout).ok()?;
    stream.set_read_timeout(Some(timeout)).unwrap();
    let mut status_line = [0; 12];
    match tls {
        None => {
            let mut stream = stream;
            stream.write_all(REQUEST).ok()?;
            stream.read_exact(&mut status_line).ok()?;
        }
        Some(config) => {
            let mut stream = crate::tls::wrap_stream(config, stream);
            stream.write_all(REQUEST).ok()?;
            stream.read_exact(&mut status_line).ok()?;
        }
    }
    assert_eq!(
        &status_line,
        b"HTTP/1.1 200",
        "{}",
        String::from_utf8_lossy(&status_line)
    );
    let took = began.elapsed();
    (took <= timeout).then_some(took)
}
