//! Raw TCP connections for clients that break the rules of HTTP.

mod small_window;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than any response in these tests takes: a host that is silent for longer hangs.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

/// A TCP connection with read and write timeouts.
pub struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    pub fn connect(address: SocketAddr) -> Self {
        Self::with_timeouts(TcpStream::connect(address).unwrap())
    }

    /// Connects with small buffers, so that the host's writes block soon if the client does not read.
    pub fn connect_with_small_window(address: SocketAddr) -> Self {
        Self::with_timeouts(small_window::connect(address))
    }

    fn with_timeouts(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(IO_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(IO_TIMEOUT)).unwrap();
        Self { stream }
    }

    /// Sends bytes. Returns `false` if the host has closed the connection; its response can still be read.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the host neither reads nor closes the connection")
            }
            Err(_) => false,
        }
    }

    /// Sends `piece` repeatedly until the host closes or `most` bytes are sent. Returns the number of bytes sent.
    pub fn send_until_closed(&mut self, piece: &[u8], most: u64) -> u64 {
        let mut sent = 0;
        while sent < most && self.send(piece) {
            sent += piece.len() as u64;
        }
        sent
    }

    /// Closes the sending side.
    pub fn shutdown_write(&self) {
        // The host may have closed the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until the host closes the connection.
    pub fn read_to_end(mut self) -> Vec<u8> {
        let (mut received, mut buffer) = (Vec::new(), [0; 1 << 14]);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return received,
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!(
                    "the host neither responds nor closes the connection; it sent: {}",
                    String::from_utf8_lossy(&received)
                ),
                Err(_) => return received,
            }
        }
    }

    /// Reads until the host closes the connection and returns the text as a response.
    pub fn read_response(self) -> RawResponse {
        let text = String::from_utf8_lossy(&self.read_to_end()).into_owned();
        crate::assert_no_host_path(&text);
        RawResponse(text)
    }
}

/// All text that a host sent before it closed the connection.
#[derive(Debug)]
pub struct RawResponse(pub String);

impl RawResponse {
    /// Returns the status of the first response, or `None` if the host sent nothing.
    pub fn status(&self) -> Option<u16> {
        let line = self.0.strip_prefix("HTTP/1.1 ")?;
        line.get(..3)?.parse().ok()
    }

    /// Returns the last path segment of the problem type in the first response.
    pub fn problem_type(&self) -> String {
        let body = self.0.split("\r\n\r\n").nth(1).unwrap_or_default();
        // Another response may follow.
        let mut values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else {
            return String::new();
        };
        let kind = value["type"].as_str().unwrap_or_default();
        kind.trim_start_matches("/problems/").to_owned()
    }
}
