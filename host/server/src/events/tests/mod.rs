//! Tests of event streams from the view of their clients.

mod load;
mod resume;
mod socket;
mod stream;

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Response;
use futures::StreamExt as _;

/// An event as an EventSource would deliver it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReceivedEvent {
    pub(super) id: u64,
    pub(super) kind: String,
    pub(super) data: serde_json::Value,
}

/// A client of an event stream.
pub(super) struct SseClient {
    body: BodyDataStream,
    text: String,
    /// The number of received comments.
    pub(super) comments: usize,
    /// The number of received empty lines that ended no event.
    pub(super) empty_lines: usize,
}

impl SseClient {
    pub(super) fn new(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
            comments: 0,
            empty_lines: 0,
        }
    }

    /// Receives the next event; `None` at the end of the stream.
    pub(super) async fn next_event(&mut self) -> Option<ReceivedEvent> {
        let mut block = String::new();
        loop {
            while let Some((line, rest)) = self.text.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.text = rest;
                if line.starts_with(':') {
                    self.comments += 1;
                } else if !line.is_empty() {
                    block.push_str(&line);
                    block.push('\n');
                } else if block.contains("data: ") {
                    return Some(parse_event(&block));
                } else {
                    self.empty_lines += 1;
                }
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Receives the next event, and panics after 30 seconds without one.
    pub(super) async fn next_event_within_timeout(&mut self) -> Option<ReceivedEvent> {
        tokio::time::timeout(Duration::from_secs(30), self.next_event())
            .await
            .expect("no event arrived within 30 seconds")
    }
}

fn parse_event(block: &str) -> ReceivedEvent {
    let field = |name: &str| {
        let lines = block.lines();
        lines
            .filter_map(|line| line.strip_prefix(name))
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    ReceivedEvent {
        id: field("id: ").parse().unwrap(),
        kind: field("event: "),
        data: serde_json::from_str(&field("data: ")).unwrap(),
    }
}
