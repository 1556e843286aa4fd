//! What the tenant may set, and the route of a document, which follows from nothing else.

use weir_sdk::Label;
use weir_sdk::routing::{DocumentFacts, DocumentRoute, Lane, ModelPreferences};
use weir_sdk::settings;

/// On which pages something is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum When {
    /// Where the text layer says too little for what is on the page.
    Auto,
    /// On every page.
    Always,
    /// Nowhere.
    Never,
}

/// The words for it.
const WHEN: [(&str, When); 3] = [
    ("auto", When::Auto),
    ("always", When::Always),
    ("never", When::Never),
];

/// What follows when one page cannot be drawn or read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum OnPageFailure {
    /// The page is reported with its error and the others go on.
    Skip,
    /// The document stops.
    Fail,
}

/// The settings of this component.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    /// When text is recognized in the page image.
    pub(crate) ocr: When,
    /// When a vision model reads the page; where it does, nothing else has to.
    pub(crate) vision: When,
    /// Characters that a page wholly under images must carry for its text layer to be trusted.
    pub(crate) ocr_min_chars: u32,
    /// Share of the page under images below which there is nothing to recognize.
    pub(crate) ocr_min_coverage: f32,
    pub(crate) on_page_failure: OnPageFailure,
    pub(crate) embed: bool,
    pub(crate) store: bool,
    pub(crate) collection: String,
    /// `None`: by the document's length.
    pub(crate) lane: Option<Lane>,
    pub(crate) labels: Vec<Label>,
    pub(crate) ocr_model: Option<String>,
    pub(crate) text_model: Option<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ocr: When::Auto,
            vision: When::Never,
            ocr_min_chars: 200,
            ocr_min_coverage: 0.1,
            on_page_failure: OnPageFailure::Skip,
            embed: true,
            store: true,
            collection: "default".into(),
            lane: None,
            labels: Vec::new(),
            ocr_model: None,
            text_model: None,
        }
    }
}

/// Pages from which on a document takes the bulk lane: a short one must not wait behind a long one.
const BULK_PAGES: u32 = 50;

impl Rules {
    /// The defaults under what the tenant has set.
    pub(crate) fn from_settings() -> Self {
        let rules = Self::default();
        let labels = settings::get("labels").unwrap_or_default();
        Self {
            ocr: settings::choice("ocr", rules.ocr, &WHEN),
            vision: settings::choice("vision", rules.vision, &WHEN),
            ocr_min_chars: settings::within("ocr-min-chars", rules.ocr_min_chars, 0..=1_000_000),
            ocr_min_coverage: settings::within("ocr-min-coverage", rules.ocr_min_coverage, 0.0..=1.0),
            on_page_failure: settings::choice(
                "on-page-failure",
                rules.on_page_failure,
                &[("skip", OnPageFailure::Skip), ("fail", OnPageFailure::Fail)],
            ),
            embed: settings::get_or("embed", rules.embed),
            store: settings::get_or("store", rules.store),
            collection: settings::get("collection").unwrap_or(rules.collection),
            lane: settings::choice(
                "lane",
                rules.lane,
                &[
                    ("auto", None),
                    ("interactive", Some(Lane::Interactive)),
                    ("bulk", Some(Lane::Bulk)),
                ],
            ),
            labels: parse_labels(&labels).unwrap_or_else(|e| panic!("{e}")),
            ocr_model: settings::get("ocr-model"),
            text_model: settings::get("text-model"),
        }
    }

    /// Where a document goes.
    pub(crate) fn document(&self, facts: &DocumentFacts) -> DocumentRoute {
        let by_length = if facts.pages < BULK_PAGES {
            Lane::Interactive
        } else {
            Lane::Bulk
        };
        DocumentRoute {
            collection: self.collection.clone(),
            lane: self.lane.unwrap_or(by_length),
            models: ModelPreferences {
                ocr: self.ocr_model.clone(),
                text_embedding: self.text_model.clone(),
            },
            labels: self.labels.clone(),
        }
    }
}

/// Reads `team=finance, source=mail`.
fn parse_labels(text: &str) -> Result<Vec<Label>, String> {
    let wrong = |part: &str| format!("the setting labels = '{text}': '{part}' is not of the form name=value");
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
            if name.trim().is_empty() {
                return Err(wrong(part));
            }
            Ok(Label {
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(pages: u32) -> DocumentFacts {
        DocumentFacts {
            document: "d".into(),
            name: "a.pdf".into(),
            bytes: 1,
            pages,
            title: None,
            outline_entries: 0,
            first_pages: vec![],
        }
    }

    #[test]
    fn without_settings_the_defaults_hold() {
        assert_eq!(Rules::from_settings(), Rules::default());
    }

    #[test]
    fn short_documents_do_not_wait_behind_long_ones() {
        let rules = Rules::default();
        assert_eq!(rules.document(&document(49)).lane, Lane::Interactive);
        assert_eq!(rules.document(&document(50)).lane, Lane::Bulk);
        let bulk = Rules {
            lane: Some(Lane::Bulk),
            ..Rules::default()
        };
        assert_eq!(bulk.document(&document(1)).lane, Lane::Bulk);
    }

    #[test]
    fn a_document_goes_where_the_settings_say() {
        let rules = Rules {
            collection: "reports".into(),
            labels: parse_labels("team=finance").unwrap(),
            text_model: Some("minilm".into()),
            ..Rules::default()
        };
        let route = rules.document(&document(3));
        assert_eq!(route.collection, "reports");
        assert_eq!(route.labels, rules.labels);
        assert_eq!(route.models.text_embedding.as_deref(), Some("minilm"));
    }

    #[test]
    fn labels_are_pairs() {
        let label = |name: &str, value: &str| Label {
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(parse_labels(""), Ok(vec![]));
        assert_eq!(
            parse_labels("team = finance, q=a=b,"),
            Ok(vec![label("team", "finance"), label("q", "a=b")])
        );
        for wrong in ["finance", "=x", "a=1, b"] {
            assert!(parse_labels(wrong).unwrap_err().contains("name=value"), "{wrong}");
        }
    }
}
