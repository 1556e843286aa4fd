//! What clients do to a server that they should not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::form;
use crate::wire::{Said, Wire};

/// Sends `piece` without end behind `begin`, up to 1 GiB; how many bytes were sent until the host hung up, and what it said.
fn without_end(address: SocketAddr, begin: &[u8], piece: &[u8]) -> (u64, Said) {
    let mut wire = Wire::open(address);
    wire.send(begin);
    let sent = wire.flood(piece, 1 << 30);
    (sent, wire.answer())
}

/// Lines of headers without end.
pub fn headers_without_end(address: SocketAddr) -> (u64, Said) {
    let line = [b"X-Filler: ".as_slice(), &[b'a'; 1000], b"\r\n"]
        .concat()
        .repeat(64);
    without_end(address, b"GET /v1/jobs HTTP/1.1\r\nHost: weir\r\n", &line)
}

/// One header without end.
pub fn header_without_end(address: SocketAddr) -> (u64, Said) {
    let begin = b"GET /v1/jobs HTTP/1.1\r\nHost: weir\r\nX-Filler: ";
    without_end(address, begin, &[b'a'; 1 << 16])
}

/// Headers of HTTP/2 that go on and on (CVE-2024-27316).
pub fn continuation_without_end(address: SocketAddr) -> (u64, Said) {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const CONTINUATION: u8 = 9;
    let frame = |kind: u8, stream: u8, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, 0, 0, 0, 0, stream];
        [&head, content].concat()
    };
    // A literal that is not indexed: a name of one letter and a value of a hundred (RFC 7541, 6.2.2).
    let field = [[0, 1, b'x', 100].as_slice(), &[b'a'; 100]].concat();
    let begin = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(SETTINGS, 0, &[]),
        &frame(HEADERS, 1, &field),
    ]
    .concat();
    without_end(address, &begin, &frame(CONTINUATION, 1, &field.repeat(100)))
}

/// Headers that come a byte at a time for as long as the host listens; how long that was, and what it said.
pub fn trickle(address: SocketAddr) -> (Duration, Said) {
    let began = Instant::now();
    let mut wire = Wire::open(address);
    wire.send(b"GET /v1/jobs HTTP/1.1\r\nHost: weir\r\nX-Filler: ");
    while began.elapsed() < Duration::from_secs(15) && wire.send(b"a") {
        std::thread::sleep(Duration::from_millis(50));
    }
    (began.elapsed(), wire.answer())
}

/// A submission as it goes over the wire.
pub struct Upload {
    address: SocketAddr,
    key: String,
    kind: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Upload {
    /// Of one file.
    pub fn of(address: SocketAddr, key: &str, file: &[u8]) -> Self {
        let (kind, body) = form(&[("file.pdf", file)], &json!({}));
        let key = key.to_owned();
        Self {
            address,
            key,
            kind,
            body,
        }
    }

    /// Sends the headers, `more` among them.
    pub fn begin(&self, more: &[&str]) -> Wire {
        let (key, kind) = (&self.key, &self.kind);
        let mut head = format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n\
             Connection: close\r\n"
        );
        for line in more {
            head += line;
            head += "\r\n";
        }
        let mut wire = Wire::open(self.address);
        wire.send(format!("{head}\r\n").as_bytes());
        wire
    }

    /// Says that `length` bytes come.
    pub fn saying(&self, length: usize) -> Wire {
        self.begin(&[&format!("Content-Length: {length}")])
    }

    /// Says that the body comes in chunks.
    pub fn chunked(&self) -> Wire {
        self.begin(&["Transfer-Encoding: chunked"])
    }

    /// The first half of the body.
    pub fn half(&self) -> &[u8] {
        &self.body[..self.body.len() / 2]
    }

    /// Half of what was said comes, and then nothing.
    pub fn stalls(&self) -> Said {
        let mut wire = self.saying(self.body.len());
        wire.send(self.half());
        wire.answer()
    }

    /// Half of what was said comes, and then the client says that this was all.
    pub fn ends_early(&self) -> Said {
        let mut wire = self.saying(self.body.len());
        wire.send(self.half());
        wire.finish();
        wire.answer()
    }

    /// More comes than was said.
    pub fn is_longer_than_said(&self) -> Said {
        let mut wire = self.saying(self.body.len() / 2);
        wire.send(&self.body);
        wire.answer()
    }

    /// A file without end in chunks; how many bytes were sent until the host hung up, and what it said.
    pub fn never_ends(&self) -> (u64, Said) {
        let mut wire = self.chunked();
        wire.send(&chunk(self.half()));
        let sent = wire.flood(&chunk(&[b'x'; 1 << 16]), 1 << 30);
        (sent, wire.answer())
    }

    /// The client is gone in the middle.
    pub fn breaks_off(&self) {
        let mut wire = self.saying(self.body.len());
        wire.send(self.half());
    }
}

/// A chunk of a body that comes in chunks.
pub fn chunk(content: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat()
}
