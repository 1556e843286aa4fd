//! HTTP byte by byte, for clients that do not keep to it.

mod narrow;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than anything here takes: a host that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    pub fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// A connection through which little fits at a time, so that a client that does not read is soon in the way.
    pub fn narrow(address: SocketAddr) -> Self {
        Self::over(narrow::connect(address))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// Sends; `false` if the host has hung up. What it said before is still there to be read.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the host takes nothing and does not hang up")
            }
            Err(_) => false,
        }
    }

    /// Sends `piece` again and again until the host hangs up or `most` bytes are sent; how many were.
    pub fn flood(&mut self, piece: &[u8], most: u64) -> u64 {
        let mut sent = 0;
        while sent < most && self.send(piece) {
            sent += piece.len() as u64;
        }
        sent
    }

    /// Nothing more will be sent.
    pub fn finish(&self) {
        // The host may have hung up already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// All that the host says until it hangs up.
    pub fn bytes(mut self) -> Vec<u8> {
        let (mut said, mut buffer) = (Vec::new(), [0; 1 << 14]);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return said,
                Ok(count) => said.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!(
                    "the host neither answers nor hangs up; it said: {}",
                    String::from_utf8_lossy(&said)
                ),
                Err(_) => return said,
            }
        }
    }

    /// The same as an answer.
    pub fn answer(self) -> Said {
        let said = String::from_utf8_lossy(&self.bytes()).into_owned();
        crate::assert_no_host_path(&said);
        Said(said)
    }
}

/// What a host said before it hung up.
#[derive(Debug)]
pub struct Said(pub String);

impl Said {
    /// The status of the first answer; `None` if the host hung up without a word.
    pub fn status(&self) -> Option<u16> {
        let line = self.0.strip_prefix("HTTP/1.1 ")?;
        line.get(..3)?.parse().ok()
    }

    /// The last word of the problem's type in the first answer.
    pub fn problem(&self) -> String {
        let body = self.0.split("\r\n\r\n").nth(1).unwrap_or_default();
        // Another answer may stand behind it.
        let mut values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else {
            return String::new();
        };
        let kind = value["type"].as_str().unwrap_or_default();
        kind.trim_start_matches("/problems/").to_owned()
    }
}
