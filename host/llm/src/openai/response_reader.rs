//! Reads a response, either whole or as Server-Sent Events while the model writes it.
//!
//! The size of a response is bounded by the maximum number of its tokens, and a line of a stream may use all of it. A stream
//! that ends without a finish reason counts as interrupted.

use reqwest::Response;
use tokio::time::{Duration, timeout};
use weir_core::llm::ProviderError;

use super::response_body::{self, CompletionBodyOrEvent, FinishReason, TokenUsage};
use crate::provider::{ProviderResponse, strip_reasoning};

/// Maximum bytes of a response per token: a token is a few characters, and a stream wraps each in some 300 bytes.
const MAX_BYTES_PER_TOKEN: usize = 2048;
/// Maximum bytes beside these, because not all endpoints count reasoning text among the tokens.
const EXTRA_RESPONSE_BYTES: usize = 4 << 20;
/// Maximum bytes of an error body that are read.
const MAX_ERROR_BODY_BYTES: usize = 16 << 10;

/// Reads one response.
pub(super) struct ResponseReader {
    stall_timeout: Duration,
    bytes_left: usize,
    text: String,
    finish_reason: Option<FinishReason>,
    refused: bool,
    usage: TokenUsage,
}

/// Reads the beginning of an error body.
pub(super) async fn read_error_body(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ERROR_BODY_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(MAX_ERROR_BODY_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

impl ResponseReader {
    pub(super) fn new(stall: Duration, max_tokens: u32) -> Self {
        let tokens = usize::try_from(max_tokens).unwrap_or(usize::MAX);
        Self {
            stall_timeout: stall,
            bytes_left: tokens
                .saturating_mul(MAX_BYTES_PER_TOKEN)
                .saturating_add(EXTRA_RESPONSE_BYTES),
            text: String::new(),
            finish_reason: None,
            refused: false,
            usage: TokenUsage::default(),
        }
    }

    fn deduct_from_byte_limit(&mut self, bytes: usize) -> Result<(), ProviderError> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left =
            left.ok_or_else(|| ProviderError::InvalidResponse("the response does not end".into()))?;
        Ok(())
    }

    /// Reads a response that arrives as one JSON body.
    pub(super) async fn read_whole_body(
        mut self,
        mut response: Response,
    ) -> Result<ProviderResponse, ProviderError> {
        let mut body = Vec::new();
        // The timeout of the call limits a whole response; nothing arrives before it is complete, so a stall cannot be
        // detected.
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|_broken| ProviderError::ResponseInterrupted)?
        {
            self.deduct_from_byte_limit(chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        if body.trim_ascii().is_empty() {
            return Err(ProviderError::EmptyResponse);
        }
        let body = response_body::parse_body_or_stream_event(&body)?;
        if body.choices.is_none() {
            return Err(ProviderError::InvalidResponse(
                "no chat completion: no choices".into(),
            ));
        }
        self.append_parsed_completion(body);
        self.into_response()
    }

    /// Reads a response that arrives as a stream of events.
    pub(super) async fn read_event_stream(
        mut self,
        mut response: Response,
    ) -> Result<ProviderResponse, ProviderError> {
        let mut lines = SseParser::default();
        let mut stall_time_left = self.stall_timeout;
        loop {
            let began = tokio::time::Instant::now();
            let chunk = timeout(stall_time_left, response.chunk())
                .await
                .map_err(|_elapsed| ProviderError::Stalled {
                    seconds: self.stall_timeout.as_secs(),
                })?;
            let Some(chunk) = chunk.map_err(|_broken| ProviderError::ResponseInterrupted)? else {
                break;
            };
            self.deduct_from_byte_limit(chunk.len())?;
            lines.push_chunk(&chunk);
            let mut progress = false;
            while let Some(event) = lines.next_event() {
                progress = true;
                if event.trim_ascii() == b"[DONE]" {
                    return self.into_response();
                }
                let body = response_body::parse_body_or_stream_event(&event)?;
                self.append_parsed_completion(body);
            }
            // Keep-alive comments do not reset the stall timeout.
            stall_time_left = if progress {
                self.stall_timeout
            } else {
                stall_time_left.saturating_sub(began.elapsed())
            };
        }
        if self.finish_reason.is_none() {
            return Err(ProviderError::ResponseInterrupted);
        }
        self.into_response()
    }

    fn append_parsed_completion(&mut self, body: CompletionBodyOrEvent) {
        if let Some(tokens) = body.usage {
            self.usage = tokens;
        }
        let Some(choice) = body.choices.into_iter().flatten().next() else {
            return;
        };
        if let Some(message) = choice.message {
            self.refused |= message.refusal.is_some_and(|words| !words.is_empty());
            if let Some(content) = message.content {
                self.text.push_str(&content.message_content_into_text());
            }
        }
        self.finish_reason = choice.finish_reason.or(self.finish_reason);
    }

    fn into_response(self) -> Result<ProviderResponse, ProviderError> {
        match self.finish_reason {
            Some(FinishReason::Length) => return Err(ProviderError::TokenLimitReached),
            Some(FinishReason::ContentFilter) => return Err(ProviderError::ContentFiltered),
            _ if self.refused => return Err(ProviderError::ContentFiltered),
            _ => {}
        }
        let text = strip_reasoning(&self.text).trim();
        if text.is_empty() {
            return Err(ProviderError::EmptyResponse);
        }
        Ok(ProviderResponse {
            text: text.to_owned(),
            quotes: Vec::new(),
            prompt_tokens: self.usage.prompt_tokens,
            completion_tokens: self.usage.completion_tokens,
        })
    }
}

/// A parser of Server-Sent Events for chunks with arbitrary boundaries.
#[derive(Default)]
struct SseParser {
    bytes: Vec<u8>,
    /// Bytes before this index are consumed.
    consumed: usize,
    data: Vec<u8>,
    has_data: bool,
}

impl SseParser {
    fn push_chunk(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.consumed.min(self.bytes.len()));
        self.consumed = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.consumed..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest.get(..end)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.consumed += end + 1;
        Some(line)
    }

    /// Returns the data of the next complete event.
    fn next_event(&mut self) -> Option<Vec<u8>> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    return Some(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if std::mem::replace(&mut self.has_data, true) {
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

    fn parse_events(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = SseParser::default();
        let mut events = Vec::new();
        for piece in pieces {
            lines.push_chunk(piece);
            while let Some(event) = lines.next_event() {
                events.push(String::from_utf8(event).unwrap());
            }
        }
        events
    }

    #[test]
    fn events_are_parsed_across_any_chunk_boundary() {
        let stream = ": hello\r\n\r\ndata: {\"a\":\r\ndata:  \"ä\"}\r\n\r\nevent: x\ndata:1\n\n\n\ndata: cut"
            .as_bytes();
        let whole = parse_events(&[stream]);
        assert_eq!(whole, ["{\"a\":\n \"ä\"}", "1"]);
        for cut in 0..stream.len() {
            assert_eq!(parse_events(&[&stream[..cut], &stream[cut..]]), whole, "at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(parse_events(&bytes), whole);
    }
}
