//! Requests of abusive or broken clients: endless headers and bodies, wrong lengths and aborted uploads.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::raw_connection::{RawConnection, RawResponse};
use crate::server::encode_multipart_form;

/// Sends `begin` and then `piece` repeatedly, up to 1 GiB. Returns the bytes sent until the host closed, and its response.
fn send_endless_piece(address: SocketAddr, begin: &[u8], piece: &[u8]) -> (u64, RawResponse) {
    let mut wire = RawConnection::connect(address);
    wire.send(begin);
    let sent = wire.send_until_closed(piece, 1 << 30);
    (sent, wire.read_response())
}

/// Sends header lines without end.
pub fn send_endless_headers(address: SocketAddr) -> (u64, RawResponse) {
    let line = [b"X-Filler: ".as_slice(), &[b'a'; 1000], b"\r\n"]
        .concat()
        .repeat(64);
    send_endless_piece(address, b"GET /v1/jobs HTTP/1.1\r\nHost: weir\r\n", &line)
}

/// Sends one header value without end.
pub fn send_endless_header(address: SocketAddr) -> (u64, RawResponse) {
    let begin = b"GET /v1/jobs HTTP/1.1\r\nHost: weir\r\nX-Filler: ";
    send_endless_piece(address, begin, &[b'a'; 1 << 16])
}

/// Sends HTTP/2 CONTINUATION frames without end (CVE-2024-27316).
pub fn send_endless_continuation(address: SocketAddr) -> (u64, RawResponse) {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const CONTINUATION: u8 = 9;
    let frame = |kind: u8, stream: u8, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, 0, 0, 0, 0, stream];
        [&head, content].concat()
    };
    // A literal header field without indexing: a name of one letter and a value of a hundred (RFC 7541, 6.2.2).
    let field = [[0, 1, b'x', 100].as_slice(), &[b'a'; 100]].concat();
    let begin = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(SETTINGS, 0, &[]),
        &frame(HEADERS, 1, &field),
    ]
    .concat();
    send_endless_piece(address, &begin, &frame(CONTINUATION, 1, &field.repeat(100)))
}

/// Sends headers one byte at a time until the host closes. Returns how long that took, and the response.
pub fn trickle_header_bytes(address: SocketAddr) -> (Duration, RawResponse) {
    let began = Instant::now();
    let mut wire = RawConnection::connect(address);
    wire.send(b"GET /v1/jobs HTTP/1.1\r\nHost: weir\r\nX-Filler: ");
    while began.elapsed() < Duration::from_secs(15) && wire.send(b"a") {
        std::thread::sleep(Duration::from_millis(50));
    }
    (began.elapsed(), wire.read_response())
}

/// A job submission that is written to a raw connection.
pub struct RawUpload {
    address: SocketAddr,
    key: String,
    content_type: String,
    /// The multipart body.
    pub body: Vec<u8>,
}

impl RawUpload {
    /// Builds the submission of one file.
    pub fn new(address: SocketAddr, key: &str, file: &[u8]) -> Self {
        let (kind, body) = encode_multipart_form(&[("file.pdf", file)], &json!({}));
        let key = key.to_owned();
        Self {
            address,
            key,
            content_type: kind,
            body,
        }
    }

    /// Sends the request headers, including the lines in `more`.
    pub fn send_headers(&self, more: &[&str]) -> RawConnection {
        let (key, kind) = (&self.key, &self.content_type);
        let mut head = format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n\
             Connection: close\r\n"
        );
        for line in more {
            head += line;
            head += "\r\n";
        }
        let mut wire = RawConnection::connect(self.address);
        wire.send(format!("{head}\r\n").as_bytes());
        wire
    }

    /// Sends the headers with a `Content-Length`.
    pub fn begin_with_length(&self, length: usize) -> RawConnection {
        self.send_headers(&[&format!("Content-Length: {length}")])
    }

    /// Sends the headers with chunked transfer encoding.
    pub fn begin_chunked(&self) -> RawConnection {
        self.send_headers(&["Transfer-Encoding: chunked"])
    }

    /// Returns the first half of the body.
    pub fn first_half(&self) -> &[u8] {
        &self.body[..self.body.len() / 2]
    }

    /// Sends half of the announced body and then nothing more.
    pub fn stall_midway(&self) -> RawResponse {
        let mut wire = self.begin_with_length(self.body.len());
        wire.send(self.first_half());
        wire.read_response()
    }

    /// Sends half of the announced body and then closes the sending side.
    pub fn end_body_early(&self) -> RawResponse {
        let mut wire = self.begin_with_length(self.body.len());
        wire.send(self.first_half());
        wire.shutdown_write();
        wire.read_response()
    }

    /// Sends twice as many bytes as announced.
    pub fn send_beyond_length(&self) -> RawResponse {
        let mut wire = self.begin_with_length(self.body.len() / 2);
        wire.send(&self.body);
        wire.read_response()
    }

    /// Sends chunks of a file without end. Returns the bytes sent until the host closed, and its response.
    pub fn send_endless_chunks(&self) -> (u64, RawResponse) {
        let mut wire = self.begin_chunked();
        wire.send(&encode_chunk(self.first_half()));
        let sent = wire.send_until_closed(&encode_chunk(&[b'x'; 1 << 16]), 1 << 30);
        (sent, wire.read_response())
    }

    /// Closes the connection in the middle of the body.
    pub fn disconnect_midway(&self) {
        let mut wire = self.begin_with_length(self.body.len());
        wire.send(self.first_half());
    }
}

/// Encodes one chunk of a body with chunked transfer encoding.
pub fn encode_chunk(content: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat()
}
