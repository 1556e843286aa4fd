//! What stands in for the host in a test: answers that the case gives, and a state in memory.
//!
//! A case that gives no answer is answered with a refusal, as a host would that lacks the model or the page; what was asked is
//! noted and shown, because a component that takes a refusal in its stride would otherwise hide that the case is incomplete.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;
use weir_core::event::ErrorNote;
use weir_core::ports::{Capabilities, PolicyState};
use weir_core::said::Remark;
use weir_core::state::{StateChange, StateSizes};
use weir_core::{DocumentId, PageNumber, PolicyError, Rect, TenantId};

/// The answers of a case, `capabilities.json`. What a model is asked is looked up by the longest key it begins with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Answers {
    /// Text layers by page.
    texts: BTreeMap<PageNumber, String>,
    /// Previews by page: rows of pixels, each a digit from 0 (black) to f (white).
    previews: BTreeMap<PageNumber, Vec<String>>,
    /// What is recognized on a page, whatever the region.
    recognized: BTreeMap<PageNumber, String>,
    /// Tokens of texts.
    tokens: BTreeMap<String, u32>,
    /// Vectors of texts; similarities are their cosines.
    vectors: BTreeMap<String, Vec<f32>>,
    /// What the language model answers to prompts.
    generated: BTreeMap<String, String>,
}

/// A host's capabilities, played by a case.
#[derive(Debug, Default)]
pub(crate) struct StandIn {
    answers: Answers,
    unanswered: Mutex<Vec<String>>,
}

impl StandIn {
    pub(crate) fn new(answers: Answers) -> Self {
        Self {
            answers,
            unanswered: Mutex::default(),
        }
    }

    /// What was asked without an answer in the case.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        std::mem::take(&mut *self.unanswered.lock())
    }

    fn lacks(&self, section: &str, what: &str) -> ErrorNote {
        let message = format!("it has no answer for {what}: add one to \"{section}\" in capabilities.json");
        self.unanswered.lock().push(message.clone());
        ErrorNote {
            kind: "unavailable".into(),
            message: format!("this is a test case, and {message}"),
        }
    }

    fn of_page<'a, T>(
        &self,
        section: &str,
        pages: &'a BTreeMap<PageNumber, T>,
        page: PageNumber,
    ) -> Result<&'a T, ErrorNote> {
        pages
            .get(&page)
            .ok_or_else(|| self.lacks(section, &format!("page {page}")))
    }

    fn of_text<'a, T>(
        &self,
        section: &str,
        known: &'a BTreeMap<String, T>,
        text: &str,
    ) -> Result<&'a T, ErrorNote> {
        let begins = |key: &&String| text.starts_with(key.as_str());
        let found = known.keys().filter(begins).max_by_key(|key| key.len());
        found.and_then(|key| known.get(key)).ok_or_else(|| {
            let start: String = text.chars().take(40).collect();
            self.lacks(section, &format!("'{}'", start.escape_debug()))
        })
    }
}

#[async_trait]
impl Capabilities for StandIn {
    async fn preview(
        &self,
        _document: &DocumentId,
        page: PageNumber,
        _longest_side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorNote> {
        let rows = self.of_page("previews", &self.answers.previews, page)?;
        picture(rows).map_err(|reason| ErrorNote {
            kind: "failed".into(),
            message: format!("the preview of page {page} in capabilities.json {reason}"),
        })
    }

    async fn page_text(&self, _document: &DocumentId, page: PageNumber) -> Result<String, ErrorNote> {
        self.of_page("texts", &self.answers.texts, page).cloned()
    }

    async fn count_tokens(&self, text: &str) -> Result<u32, ErrorNote> {
        self.of_text("tokens", &self.answers.tokens, text).copied()
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorNote> {
        let vector = |text: &String| self.of_text("vectors", &self.answers.vectors, text).cloned();
        texts.iter().map(vector).collect()
    }

    async fn recognize(
        &self,
        _document: &DocumentId,
        page: PageNumber,
        _region: Rect,
    ) -> Result<String, ErrorNote> {
        self.of_page("recognized", &self.answers.recognized, page)
            .cloned()
    }

    async fn generate(&self, prompt: &str, _max_tokens: u32) -> Result<String, ErrorNote> {
        self.of_text("generated", &self.answers.generated, prompt)
            .cloned()
    }

    /// No default component stands in while a component is tested.
    fn policy_failed(&self, _error: &PolicyError) {}

    fn said(&self, _remark: Remark) {}
}

/// Width, height and pixels of a preview that is written in digits.
fn picture(rows: &[String]) -> Result<(u32, u32, Vec<u8>), String> {
    let width = rows.first().map_or(0, String::len);
    if width == 0 || rows.iter().any(|row| row.len() != width) {
        return Err("has rows that are empty or of different lengths".into());
    }
    let pixels: Option<Vec<u8>> = rows
        .iter()
        .flat_map(|row| row.chars())
        .map(|c| Some(u8::try_from(c.to_digit(16)?).ok()? * 17))
        .collect();
    let pixels = pixels.ok_or("has other characters than the digits 0 to f")?;
    let side = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
    Ok((side(width)?, side(rows.len())?, pixels))
}

/// What components remember, in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryState {
    values: Mutex<HashMap<String, Vec<u8>>>,
}

impl MemoryState {
    /// Forgets everything: each case begins like the first job.
    pub(crate) fn clear(&self) {
        self.values.lock().clear();
    }
}

#[async_trait]
impl PolicyState for MemoryState {
    async fn get(&self, _: &TenantId, _: &str, key: &str) -> Result<Option<Vec<u8>>, ErrorNote> {
        Ok(self.values.lock().get(key).cloned())
    }

    async fn sizes(&self, _: &TenantId, _: &str) -> Result<StateSizes, ErrorNote> {
        let values = self.values.lock();
        Ok(values
            .iter()
            .map(|(key, value)| (key.clone(), value.len()))
            .collect())
    }

    async fn apply(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorNote> {
        let mut sizes = self.sizes(tenant, pipeline).await?;
        sizes.change_all(&changes)?;
        let mut values = self.values.lock();
        for StateChange { key, value } in changes {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        Ok(())
    }
}

impl Answers {
    /// Reads `capabilities.json`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .context("its parts are texts, previews, recognized, tokens, vectors and generated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_case_answers_by_page_and_by_beginning() {
        let text = r#"{"texts": {"2": "two"}, "vectors": {"": [0, 1], "Rent": [1, 0]}, "previews": {"1": ["0f", "f0"]}}"#;
        let host = StandIn::new(Answers::parse(text).unwrap());
        let document = DocumentId::of(b"d");
        assert_eq!(host.page_text(&document, 2).await.unwrap(), "two");
        assert_eq!(
            host.preview(&document, 1, 64).await.unwrap(),
            (2, 2, vec![0, 255, 255, 0])
        );
        let vectors = host
            .embed(vec!["Rent is due".into(), "Other".into()])
            .await
            .unwrap();
        assert_eq!(vectors, [[1.0, 0.0], [0.0, 1.0]]);
        assert!(host.unanswered().is_empty());
    }

    #[tokio::test]
    async fn what_a_case_does_not_answer_is_refused_and_noted() {
        let host = StandIn::default();
        let refused = host
            .recognize(&DocumentId::of(b"d"), 3, Rect::PAGE)
            .await
            .unwrap_err();
        assert_eq!(refused.kind, "unavailable");
        assert!(host.generate("why?\n", 5).await.is_err());
        let noted = host.unanswered();
        assert!(
            noted[0].contains("page 3") && noted[0].contains("\"recognized\""),
            "{noted:?}"
        );
        assert!(noted[1].contains("'why?\\n'"), "{noted:?}");
        assert!(host.unanswered().is_empty());
    }

    #[test]
    fn a_picture_is_a_rectangle_of_digits() {
        for wrong in [&[][..], &[""], &["ff", "f"], &["fg"]] {
            let rows: Vec<String> = wrong.iter().map(|row| (*row).to_owned()).collect();
            assert!(picture(&rows).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn the_state_passes_the_conformance_suite() {
        weir_conformance::check_policy_state(&MemoryState::default()).await;
    }
}
