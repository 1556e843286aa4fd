//! Clients that follow a job's events and read nothing until the test tells them to.

use std::net::SocketAddr;

use serde_json::Value;

use crate::raw_connection::RawConnection;

/// The protocol by which events are sent.
#[derive(Debug, Clone, Copy)]
pub enum EventTransport {
    ServerSentEvents,
    WebSocket,
}

/// A connection that has requested a job's events.
pub struct EventFollower {
    connection: RawConnection,
    transport: EventTransport,
}

impl EventFollower {
    /// Requests all events over a connection with small buffers, and does not read yet.
    pub fn connect_slow_reader(address: SocketAddr, key: &str, job: &str, transport: EventTransport) -> Self {
        Self::request_events(
            RawConnection::connect_with_small_window(address),
            key,
            job,
            transport,
            0,
        )
    }

    /// Requests the events with sequence numbers above `after`.
    pub fn connect_after(
        address: SocketAddr,
        key: &str,
        job: &str,
        transport: EventTransport,
        after: u64,
    ) -> Self {
        Self::request_events(RawConnection::connect(address), key, job, transport, after)
    }

    fn request_events(
        mut connection: RawConnection,
        key: &str,
        job: &str,
        transport: EventTransport,
        after: u64,
    ) -> Self {
        let path = format!("/v1/jobs/{job}/events");
        let key = format!("Host: weir\r\nAuthorization: Bearer {key}\r\n");
        let request = match transport {
            // HTTP/1.0 responses are not chunked.
            EventTransport::ServerSentEvents => {
                format!("GET {path} HTTP/1.0\r\n{key}Last-Event-ID: {after}\r\n\r\n")
            }
            EventTransport::WebSocket => format!(
                "GET {path}/ws?after={after} HTTP/1.1\r\n{key}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        };
        assert!(
            connection.send(request.as_bytes()),
            "the host closed the connection"
        );
        Self {
            connection,
            transport,
        }
    }

    /// Reads until the host closes the connection and returns the complete events.
    pub fn read_events(self) -> Vec<Value> {
        let received = self.connection.read_to_end();
        let head = received.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = received.split_at(head.expect("the response has a header section") + 4);
        let head = String::from_utf8_lossy(head);
        match self.transport {
            EventTransport::ServerSentEvents => {
                assert!(head.starts_with("HTTP/1.0 200"), "{head}");
                parse_sse_events(&String::from_utf8_lossy(body))
            }
            EventTransport::WebSocket => {
                assert!(head.starts_with("HTTP/1.1 101"), "{head}");
                parse_websocket_events(body)
            }
        }
    }
}

fn parse_sse_events(text: &str) -> Vec<Value> {
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let data = whole.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).unwrap_or_else(|_| panic!("event data is not JSON: {json}")))
        .collect()
}

/// Parses the text frames of a server, which are not masked (RFC 6455, 5.2).
fn parse_websocket_events(mut bytes: &[u8]) -> Vec<Value> {
    const TEXT: u8 = 0x81;
    let mut events = Vec::new();
    while let [kind, short, rest @ ..] = bytes {
        let (length, rest) = match (short, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (0..=125, rest) => (usize::from(*short), rest),
            _ => break,
        };
        let Some((content, behind)) = rest.split_at_checked(length) else {
            break;
        };
        if *kind == TEXT {
            events.push(serde_json::from_slice(content).expect("a text frame contains JSON"));
        }
        bytes = behind;
    }
    events
}
