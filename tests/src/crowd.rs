//! Thousands of connections of clients that want no answer, from one address or from many.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How a connection is held without any work for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Nothing is sent.
    Silent,
    /// The preface of HTTP/2, and then nothing.
    Http2Preface,
    /// The first half of a TLS handshake.
    HalfHandshake,
    /// Headers of which a byte comes now and then.
    TrickledHeaders,
    /// A request, and no other one behind it.
    KeepAlive,
    /// A request over HTTP/2, of whose answer no byte may be sent.
    ClosedWindow,
}

impl Attack {
    pub const ALL: [Self; 6] = [
        Self::Silent,
        Self::Http2Preface,
        Self::HalfHandshake,
        Self::TrickledHeaders,
        Self::KeepAlive,
        Self::ClosedWindow,
    ];

    /// The bytes that each connection begins with.
    fn opening(self) -> Vec<u8> {
        match self {
            Self::Silent => Vec::new(),
            Self::Http2Preface => [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
            // A record of a handshake that announces 512 bytes, and some of them.
            Self::HalfHandshake => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 40]].concat(),
            Self::TrickledHeaders => b"GET /healthz HTTP/1.1\r\nHost: weir\r\nX-Filler: ".to_vec(),
            Self::KeepAlive => b"GET /healthz HTTP/1.1\r\nHost: weir\r\n\r\n".to_vec(),
            Self::ClosedWindow => {
                // INITIAL_WINDOW_SIZE is 0 (RFC 9113, 6.5.2).
                let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
                // GET, http, and the path and authority as literals (RFC 7541, appendix A).
                let path = b"/openapi.json";
                let head = [
                    &[0x82, 0x86, 0x04, path.len() as u8],
                    &path[..],
                    &[0x41, 4],
                    b"weir",
                ]
                .concat();
                [PREFACE, &settings, &frame(HEADERS, 5, 1, &head)].concat()
            }
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u8;
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], content].concat()
}

/// Connections that are held.
pub struct Crowd {
    attack: Attack,
    address: SocketAddr,
    sources: Vec<Ipv4Addr>,
    streams: Vec<TcpStream>,
}

impl Crowd {
    /// One without connections yet; they will come from these addresses in turn.
    pub fn new(attack: Attack, address: SocketAddr, sources: Vec<Ipv4Addr>) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, raised).unwrap();
        Self {
            attack,
            address,
            sources,
            streams: Vec::new(),
        }
    }

    /// Opens so many more, and sends another byte on those that are open where the attack is made of bytes. Whether all were opened: a
    /// host that accepts nothing leaves no room in its queue.
    pub fn grow(&mut self, count: usize) -> bool {
        if self.attack == Attack::TrickledHeaders {
            for stream in &mut self.streams {
                // The host may have closed it.
                let _ = stream.write_all(b"a");
            }
        }
        let opening = self.attack.opening();
        let mut failures = 0;
        for n in 0..count {
            if n % 50 == 0 {
                // No more at once than wait in a queue of the usual length.
                std::thread::sleep(Duration::from_millis(5));
            }
            let source = self.sources[self.streams.len() % self.sources.len()];
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

/// A connection from an address of this machine; `None` if it is not made in a moment.
fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Option<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_secs(1))).unwrap();
    rustix::net::connect(&socket, &address).ok()?;
    Some(socket.into())
}

/// How long `GET /healthz` takes on a new connection, over TLS where `tls` is given; `None` if it is not answered within `patience`.
pub fn probe(
    address: SocketAddr,
    tls: Option<&std::sync::Arc<rustls::ClientConfig>>,
    patience: Duration,
) -> Option<Duration> {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n";
    let began = Instant::now();
    let stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = [0; 12];
    match tls {
        None => {
            let mut stream = stream;
            stream.write_all(REQUEST).ok()?;
            stream.read_exact(&mut answer).ok()?;
        }
        Some(config) => {
            let mut stream = crate::tls::connect(config, stream);
            stream.write_all(REQUEST).ok()?;
            stream.read_exact(&mut answer).ok()?;
        }
    }
    assert_eq!(&answer, b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&answer));
    let took = began.elapsed();
    (took <= patience).then_some(took)
}
