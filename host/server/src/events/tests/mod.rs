//! Streams of events, as their clients see them.

mod load;
mod resume;
mod socket;
mod stream;

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Response;
use futures::StreamExt as _;

/// Numbers that are the same in each run.
pub(super) struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// An event as an EventSource would hand it on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Received {
    pub(super) id: u64,
    pub(super) kind: String,
    pub(super) data: serde_json::Value,
}

/// A client of an event stream.
pub(super) struct Client {
    body: BodyDataStream,
    text: String,
    /// Comments so far.
    pub(super) beats: usize,
    /// Empty lines so far that ended no event.
    pub(super) empty: usize,
}

impl Client {
    pub(super) fn new(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
            beats: 0,
            empty: 0,
        }
    }

    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Received> {
        let mut block = String::new();
        loop {
            while let Some((line, rest)) = self.text.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.text = rest;
                if line.starts_with(':') {
                    self.beats += 1;
                } else if !line.is_empty() {
                    block.push_str(&line);
                    block.push('\n');
                } else if block.contains("data: ") {
                    return Some(received(&block));
                } else {
                    self.empty += 1;
                }
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The same, for tests that would otherwise wait for ever.
    pub(super) async fn soon(&mut self) -> Option<Received> {
        tokio::time::timeout(Duration::from_secs(30), self.next())
            .await
            .expect("nothing came")
    }
}

fn received(block: &str) -> Received {
    let field = |name: &str| {
        let lines = block.lines();
        lines
            .filter_map(|line| line.strip_prefix(name))
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    Received {
        id: field("id: ").parse().unwrap(),
        kind: field("event: "),
        data: serde_json::from_str(&field("data: ")).unwrap(),
    }
}
