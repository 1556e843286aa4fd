//! The settings of the tenant, and the route of a document, which depends only on them and on its length.

use weir_sdk::Label;
use weir_sdk::routing::{DocumentFacts, DocumentRoute, Lane, ModelPreferences};
use weir_sdk::settings;

/// The pages on which a reading method is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PageSelection {
    /// Pages whose text layer has too little text for their images.
    Auto,
    /// All pages.
    Always,
    /// No page.
    Never,
}

/// The values of a setting.
const PAGE_SELECTIONS: [(&str, PageSelection); 3] = [
    ("auto", PageSelection::Auto),
    ("always", PageSelection::Always),
    ("never", PageSelection::Never),
];

/// The action if a page cannot be rasterized or read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum OnPageFailure {
    /// Report the page with its error and continue with the others.
    Skip,
    /// Fail the document.
    Fail,
}

/// The settings of this component.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RoutingSettings {
    /// Pages on which OCR is used.
    pub(crate) ocr: PageSelection,
    /// Pages that a vision model reads instead of OCR or the text layer.
    pub(crate) vision: PageSelection,
    /// Characters that a page fully covered by images must have for its text layer to be used.
    pub(crate) ocr_min_chars: u32,
    /// Fraction of the page covered by images below which OCR is not used.
    pub(crate) ocr_min_coverage: f32,
    pub(crate) on_page_failure: OnPageFailure,
    pub(crate) embed: bool,
    pub(crate) store: bool,
    pub(crate) collection: String,
    /// The lane; `None` to choose by the document's length.
    pub(crate) lane: Option<Lane>,
    pub(crate) labels: Vec<Label>,
    pub(crate) ocr_model: Option<String>,
    pub(crate) text_model: Option<String>,
}

impl Default for RoutingSettings {
    fn default() -> Self {
        Self {
            ocr: PageSelection::Auto,
            vision: PageSelection::Never,
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

/// Number of pages from which a document uses the bulk lane, so that short documents do not wait behind long ones.
const BULK_PAGES: u32 = 50;

impl RoutingSettings {
    /// Reads the settings; those that are not set have their defaults.
    pub(crate) fn from_settings() -> Self {
        let rules = Self::default();
        let labels = settings::get("labels").unwrap_or_default();
        Self {
            ocr: settings::choice("ocr", rules.ocr, &PAGE_SELECTIONS),
            vision: settings::choice("vision", rules.vision, &PAGE_SELECTIONS),
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

    pub(crate) fn route_document(&self, facts: &DocumentFacts) -> DocumentRoute {
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

/// Parses labels of the form `team=finance, source=mail`.
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
        assert_eq!(RoutingSettings::from_settings(), RoutingSettings::default());
    }

    #[test]
    fn short_documents_get_the_interactive_lane() {
        let rules = RoutingSettings::default();
        assert_eq!(rules.route_document(&document(49)).lane, Lane::Interactive);
        assert_eq!(rules.route_document(&document(50)).lane, Lane::Bulk);
        let bulk = RoutingSettings {
            lane: Some(Lane::Bulk),
            ..RoutingSettings::default()
        };
        assert_eq!(bulk.route_document(&document(1)).lane, Lane::Bulk);
    }

    #[test]
    fn document_route_follows_the_settings() {
        let rules = RoutingSettings {
            collection: "reports".into(),
            labels: parse_labels("team=finance").unwrap(),
            text_model: Some("minilm".into()),
            ..RoutingSettings::default()
        };
        let route = rules.route_document(&document(3));
        assert_eq!(route.collection, "reports");
        assert_eq!(route.labels, rules.labels);
        assert_eq!(route.models.text_embedding.as_deref(), Some("minilm"));
    }

    #[test]
    fn labels_are_parsed_as_name_and_value() {
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
