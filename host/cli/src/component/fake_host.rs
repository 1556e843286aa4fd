//! The fake host of `weir component test`: responses of capabilities from the test case.
//!
//! A call without a response in the test case gets the error `unavailable`, as from a host without the model or the page. The
//! call is also recorded and printed. A component may handle the error, and the incomplete test case would not be noticed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;
use weir_core::component_log::ComponentLogRecord;
use weir_core::event::ErrorInfo;
use weir_core::ports::HostCapabilities;
use weir_core::{DocumentId, PageNumber, PolicyError, Rect};

/// The responses of a test case, from `capabilities.json`. A response by text is the one with the longest key that is a
/// prefix of the requested text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct FakeResponsesByPageOrText {
    /// Text layers by page number.
    texts: BTreeMap<PageNumber, String>,
    /// Previews by page number. A preview is a list of rows, and each pixel is a digit from 0 (black) to f (white).
    previews: BTreeMap<PageNumber, Vec<String>>,
    /// Recognized text by page number, for any region of the page.
    recognized: BTreeMap<PageNumber, String>,
    /// Token counts by text.
    tokens: BTreeMap<String, u32>,
    /// Embedding vectors by text. The similarity of two texts is the cosine of their vectors.
    vectors: BTreeMap<String, Vec<f32>>,
    /// Generated texts by prompt.
    generated: BTreeMap<String, String>,
}

/// Fake capabilities that return the responses of a test case.
#[derive(Debug, Default)]
pub(crate) struct FakeCapabilities {
    responses: FakeResponsesByPageOrText,
    unanswered_calls: Mutex<Vec<String>>,
}

impl FakeCapabilities {
    pub(crate) fn new(capability_responses: FakeResponsesByPageOrText) -> Self {
        Self {
            responses: capability_responses,
            unanswered_calls: Mutex::default(),
        }
    }

    /// Returns the messages about calls without a response, and clears them.
    pub(crate) fn take_unanswered_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.unanswered_calls.lock())
    }

    fn record_and_build_unanswered_error(&self, section: &str, subject: &str) -> ErrorInfo {
        let message = format!(
            "the test case has no response for {subject}: add one to \"{section}\" in capabilities.json"
        );
        self.unanswered_calls.lock().push(message.clone());
        ErrorInfo {
            kind: "unavailable".into(),
            message,
        }
    }

    fn response_for_page<'a, T>(
        &self,
        section: &str,
        pages: &'a BTreeMap<PageNumber, T>,
        page: PageNumber,
    ) -> Result<&'a T, ErrorInfo> {
        pages
            .get(&page)
            .ok_or_else(|| self.record_and_build_unanswered_error(section, &format!("page {page}")))
    }

    fn response_for_text<'a, T>(
        &self,
        section: &str,
        responses: &'a BTreeMap<String, T>,
        text: &str,
    ) -> Result<&'a T, ErrorInfo> {
        let is_prefix = |key: &&String| text.starts_with(key.as_str());
        let found = responses.keys().filter(is_prefix).max_by_key(|key| key.len());
        found.and_then(|key| responses.get(key)).ok_or_else(|| {
            let start: String = text.chars().take(40).collect();
            self.record_and_build_unanswered_error(section, &format!("'{}'", start.escape_debug()))
        })
    }
}

#[async_trait]
impl HostCapabilities for FakeCapabilities {
    async fn render_preview(
        &self,
        _document: &DocumentId,
        page: PageNumber,
        _longest_side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorInfo> {
        let rows = self.response_for_page("previews", &self.responses.previews, page)?;
        parse_preview(rows).map_err(|reason| ErrorInfo {
            kind: "failed".into(),
            message: format!("the preview of page {page} in capabilities.json is invalid: it {reason}"),
        })
    }

    async fn read_page_text_layer(
        &self,
        _document: &DocumentId,
        page: PageNumber,
    ) -> Result<String, ErrorInfo> {
        self.response_for_page("texts", &self.responses.texts, page)
            .cloned()
    }

    async fn count_embedding_tokens(&self, text: &str) -> Result<u32, ErrorInfo> {
        self.response_for_text("tokens", &self.responses.tokens, text)
            .copied()
    }

    async fn embed_texts(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorInfo> {
        let vector = |text: &String| {
            self.response_for_text("vectors", &self.responses.vectors, text)
                .cloned()
        };
        texts.iter().map(vector).collect()
    }

    async fn recognize_region(
        &self,
        _document: &DocumentId,
        page: PageNumber,
        _region: Rect,
    ) -> Result<String, ErrorInfo> {
        self.response_for_page("recognized", &self.responses.recognized, page)
            .cloned()
    }

    async fn generate_text(&self, prompt: &str, _max_tokens: u32) -> Result<String, ErrorInfo> {
        self.response_for_text("generated", &self.responses.generated, prompt)
            .cloned()
    }

    /// Does nothing, because tests do not use default components as a fallback.
    fn report_policy_fallback(&self, _error: &PolicyError) {}

    fn append_component_log(&self, _record: ComponentLogRecord) {}
}

/// Parses a preview from rows of hexadecimal digits. Returns width, height and gray values.
fn parse_preview(rows: &[String]) -> Result<(u32, u32, Vec<u8>), String> {
    let width = rows.first().map_or(0, String::len);
    if width == 0 || rows.iter().any(|row| row.len() != width) {
        return Err("has rows that are empty or of different lengths".into());
    }
    let pixels: Option<Vec<u8>> = rows
        .iter()
        .flat_map(|row| row.chars())
        .map(|c| Some(u8::try_from(c.to_digit(16)?).ok()? * 17))
        .collect();
    let pixels = pixels.ok_or("has characters other than the digits 0 to f")?;
    let side = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
    Ok((side(width)?, side(rows.len())?, pixels))
}

impl FakeResponsesByPageOrText {
    /// Reads `capabilities.json`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .context("the allowed fields are texts, previews, recognized, tokens, vectors and generated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn responses_are_found_by_page_and_by_text_prefix() {
        let text = r#"{"texts": {"2": "two"}, "vectors": {"": [0, 1], "Rent": [1, 0]}, "previews": {"1": ["0f", "f0"]}}"#;
        let host = FakeCapabilities::new(FakeResponsesByPageOrText::parse(text).unwrap());
        let document = DocumentId::from_content(b"d");
        assert_eq!(host.read_page_text_layer(&document, 2).await.unwrap(), "two");
        assert_eq!(
            host.render_preview(&document, 1, 64).await.unwrap(),
            (2, 2, vec![0, 255, 255, 0])
        );
        let vectors = host
            .embed_texts(vec!["Rent is due".into(), "Other".into()])
            .await
            .unwrap();
        assert_eq!(vectors, [[1.0, 0.0], [0.0, 1.0]]);
        assert!(host.take_unanswered_calls().is_empty());
    }

    #[tokio::test]
    async fn call_without_response_fails_and_is_recorded() {
        let host = FakeCapabilities::default();
        let refused = host
            .recognize_region(&DocumentId::from_content(b"d"), 3, Rect::WHOLE_PAGE)
            .await
            .unwrap_err();
        assert_eq!(refused.kind, "unavailable");
        assert!(host.generate_text("why?\n", 5).await.is_err());
        let noted = host.take_unanswered_calls();
        assert!(
            noted[0].contains("page 3") && noted[0].contains("\"recognized\""),
            "{noted:?}"
        );
        assert!(noted[1].contains("'why?\\n'"), "{noted:?}");
        assert!(host.take_unanswered_calls().is_empty());
    }

    #[test]
    fn preview_must_be_a_rectangle_of_hex_digits() {
        for wrong in [&[][..], &[""], &["ff", "f"], &["fg"]] {
            let rows: Vec<String> = wrong.iter().map(|row| (*row).to_owned()).collect();
            assert!(parse_preview(&rows).is_err(), "{wrong:?}");
        }
    }
}
