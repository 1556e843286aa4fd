//! Followers of events that do not read, until they are told to.

use std::net::SocketAddr;

use serde_json::Value;

use crate::wire::Wire;

/// How events come.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    ServerSentEvents,
    WebSocket,
}

/// A follower of a job's events.
pub struct Follower {
    wire: Wire,
    way: Way,
}

impl Follower {
    /// One that will not read for now.
    pub fn stuck(address: SocketAddr, key: &str, job: &str, way: Way) -> Self {
        Self::over(Wire::narrow(address), key, job, way, 0)
    }

    /// One that reads on after an event.
    pub fn after(address: SocketAddr, key: &str, job: &str, way: Way, after: u64) -> Self {
        Self::over(Wire::open(address), key, job, way, after)
    }

    fn over(mut wire: Wire, key: &str, job: &str, way: Way, after: u64) -> Self {
        let path = format!("/v1/jobs/{job}/events");
        let key = format!("Host: weir\r\nAuthorization: Bearer {key}\r\n");
        let request = match way {
            // Of this version, whose answers are not cut into chunks.
            Way::ServerSentEvents => {
                format!("GET {path} HTTP/1.0\r\n{key}Last-Event-ID: {after}\r\n\r\n")
            }
            Way::WebSocket => format!(
                "GET {path}/ws?after={after} HTTP/1.1\r\n{key}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        };
        assert!(wire.send(request.as_bytes()), "the host hung up");
        Self { wire, way }
    }

    /// Reads all that comes until the host hangs up: the events that came whole.
    pub fn read(self) -> Vec<Value> {
        let said = self.wire.bytes();
        let head = said.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = said.split_at(head.expect("an answer") + 4);
        let head = String::from_utf8_lossy(head);
        match self.way {
            Way::ServerSentEvents => {
                assert!(head.starts_with("HTTP/1.0 200"), "{head}");
                sent(&String::from_utf8_lossy(body))
            }
            Way::WebSocket => {
                assert!(head.starts_with("HTTP/1.1 101"), "{head}");
                framed(body)
            }
        }
    }
}

fn sent(text: &str) -> Vec<Value> {
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let data = whole.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).unwrap_or_else(|_| panic!("JSON: {json}")))
        .collect()
}

/// Text frames of a host, which are not masked (RFC 6455, 5.2).
fn framed(mut bytes: &[u8]) -> Vec<Value> {
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
            events.push(serde_json::from_slice(content).expect("JSON"));
        }
        bytes = behind;
    }
    events
}
