//! Listens to an answer: whole, or as Server-Sent Events while it is written.
//!
//! Nothing is believed about its length: an answer may take so many bytes for each token it may have, and a line of a stream
//! as many as all of them. A stream that ends without having said that it ends was cut.

use reqwest::Response;
use tokio::time::{Duration, timeout};
use weir_core::language::Fault;

use super::wire::{self, Body, Finish, Tokens};
use crate::provider::Reply;
use crate::thoughts;

/// Bytes of an answer for each token it may have: a token is a few characters, and a stream wraps each in some 300 bytes.
const BYTES_PER_TOKEN: usize = 2048;
/// Bytes beside them; reasoning that comes along is not counted among the tokens by all.
const BYTES_BESIDE: usize = 4 << 20;
/// Bytes of an error that are read.
const BYTES_OF_WORDS: usize = 16 << 10;

/// Listens to one answer.
pub(super) struct Listener {
    stall: Duration,
    room: usize,
    text: String,
    finish: Option<Finish>,
    refused: bool,
    tokens: Tokens,
}

/// The beginning of an error's body.
pub(super) async fn words(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < BYTES_OF_WORDS
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(BYTES_OF_WORDS);
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Listener {
    pub(super) fn new(stall: Duration, max_tokens: u32) -> Self {
        let tokens = usize::try_from(max_tokens).unwrap_or(usize::MAX);
        Self {
            stall,
            room: tokens
                .saturating_mul(BYTES_PER_TOKEN)
                .saturating_add(BYTES_BESIDE),
            text: String::new(),
            finish: None,
            refused: false,
            tokens: Tokens::default(),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        let left = self.room.checked_sub(bytes);
        self.room = left.ok_or_else(|| Fault::Unintelligible("it does not end".into()))?;
        Ok(())
    }

    /// An answer that comes when it is done.
    pub(super) async fn whole(mut self, mut answer: Response) -> Result<Reply, Fault> {
        let mut body = Vec::new();
        // How long a whole answer takes is for the call's own limit to say: until it is done, nothing comes.
        while let Some(chunk) = answer.chunk().await.map_err(|_broken| Fault::BrokenOff)? {
            self.take(chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        if body.trim_ascii().is_empty() {
            return Err(Fault::Empty);
        }
        let body = wire::body(&body)?;
        if body.choices.is_none() {
            return Err(Fault::Unintelligible("no chat completion: no choices".into()));
        }
        self.hear(body);
        self.reply()
    }

    /// An answer that comes as it is written.
    pub(super) async fn stream(mut self, mut answer: Response) -> Result<Reply, Fault> {
        let mut lines = Lines::default();
        let mut quiet = self.stall;
        loop {
            let began = tokio::time::Instant::now();
            let chunk = timeout(quiet, answer.chunk())
                .await
                .map_err(|_elapsed| Fault::Stalled {
                    seconds: self.stall.as_secs(),
                })?;
            let Some(chunk) = chunk.map_err(|_broken| Fault::BrokenOff)? else {
                break;
            };
            self.take(chunk.len())?;
            lines.push(&chunk);
            let mut progress = false;
            while let Some(event) = lines.event() {
                progress = true;
                if event.trim_ascii() == b"[DONE]" {
                    return self.reply();
                }
                let body = wire::body(&event)?;
                self.hear(body);
            }
            // A sign of life in between is not progress.
            quiet = if progress {
                self.stall
            } else {
                quiet.saturating_sub(began.elapsed())
            };
        }
        if self.finish.is_none() {
            return Err(Fault::BrokenOff);
        }
        self.reply()
    }

    fn hear(&mut self, body: Body) {
        if let Some(tokens) = body.usage {
            self.tokens = tokens;
        }
        let Some(choice) = body.choices.into_iter().flatten().next() else {
            return;
        };
        if let Some(message) = choice.message {
            self.refused |= message.refusal.is_some_and(|words| !words.is_empty());
            if let Some(content) = message.content {
                self.text.push_str(&content.text());
            }
        }
        self.finish = choice.finish_reason.or(self.finish);
    }

    fn reply(self) -> Result<Reply, Fault> {
        match self.finish {
            Some(Finish::Length) => return Err(Fault::CutShort),
            Some(Finish::ContentFilter) => return Err(Fault::Filtered),
            _ if self.refused => return Err(Fault::Filtered),
            _ => {}
        }
        let text = thoughts::without(&self.text).trim();
        if text.is_empty() {
            return Err(Fault::Empty);
        }
        Ok(Reply {
            text: text.to_owned(),
            quotes: Vec::new(),
            prompt_tokens: self.tokens.prompt_tokens,
            answer_tokens: self.tokens.completion_tokens,
        })
    }
}

/// Data of Server-Sent Events, out of bytes that are cut anywhere.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Bytes before this are done with.
    start: usize,
    data: Vec<u8>,
    begun: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start.min(self.bytes.len()));
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.start..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest.get(..end)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.start += end + 1;
        Some(line)
    }

    /// The data of the next event that is whole.
    fn event(&mut self) -> Option<Vec<u8>> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                if std::mem::take(&mut self.begun) {
                    return Some(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if std::mem::replace(&mut self.begun, true) {
                    self.data.push(b'\n');
                }
                self.data
                    .extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut events = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(event) = lines.event() {
                events.push(String::from_utf8(event).unwrap());
            }
        }
        events
    }

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let stream = ": hello\r\n\r\ndata: {\"a\":\r\ndata:  \"ä\"}\r\n\r\nevent: x\ndata:1\n\n\n\ndata: cut"
            .as_bytes();
        let whole = events(&[stream]);
        assert_eq!(whole, ["{\"a\":\n \"ä\"}", "1"]);
        for cut in 0..stream.len() {
            assert_eq!(events(&[&stream[..cut], &stream[cut..]]), whole, "at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(events(&bytes), whole);
    }
}
