//! Routing for an office that files contracts.
//!
//! A contract names its type at the beginning. So a document is classified by its title and by the start of its first page: the text
//! layer if there is one, else OCR of the upper part of the page. The pages of a contract are checked for two columns. A scanner that
//! writes a text layer mixes the lines of both columns, so OCR is used on scanned pages with two columns.

use std::collections::HashSet;

use weir_sdk::inference::{Region, recognize};
use weir_sdk::rasterizer::{self, Picture};
use weir_sdk::routing::{
    DocumentFacts, DocumentRoute, Failure, Lane, ModelPreferences, PageRoute, Reading, Routing, Verdict,
};
use weir_sdk::{DocumentId, Label, PageFacts, log, settings};

/// Number of characters from which a text layer is used.
const MIN_TEXT_CHARS: u32 = 50;
/// The part of the first page that contains the title: its upper third.
const TITLE_REGION: Region = Region {
    x: 0.0,
    y: 0.0,
    width: 1.0,
    height: 0.33,
};
/// Number of characters of a text layer that are searched for the words.
const OPENING_CHARS: usize = 400;

struct Contracts {
    words: Vec<String>,
    /// The documents of this job that are contracts.
    contracts: HashSet<DocumentId>,
}

impl Default for Contracts {
    fn default() -> Self {
        let words = settings::get("words").unwrap_or_else(|| "contract, agreement, lease".into());
        Self {
            words: words
                .split(',')
                .map(|word| word.trim().to_lowercase())
                .filter(|word| !word.is_empty())
                .collect(),
            contracts: HashSet::new(),
        }
    }
}

impl Routing for Contracts {
    fn document(&mut self, facts: DocumentFacts) -> DocumentRoute {
        let title = facts.title.as_deref().unwrap_or_default();
        let begins = format!("{title}\n{}", read_opening(&facts)).to_lowercase();
        let is_contract = self.words.iter().any(|word| begins.contains(word));
        if is_contract {
            self.contracts.insert(facts.document);
        }
        DocumentRoute {
            collection: if is_contract { "contracts" } else { "default" }.into(),
            lane: if is_contract {
                Lane::Interactive
            } else {
                Lane::Bulk
            },
            models: ModelPreferences {
                ocr: None,
                text_embedding: None,
            },
            labels: if is_contract {
                vec![make_label("kind", "contract")]
            } else {
                Vec::new()
            },
        }
    }

    fn page(&mut self, document: DocumentId, page: PageFacts) -> PageRoute {
        let is_contract = self.contracts.contains(&document);
        let two_columns = is_contract && page.readable && has_two_columns(&document, page.number);
        let reading = if !page.readable {
            Reading::Nothing
        } else if two_columns && page.image_coverage >= 0.5 {
            Reading::Ocr
        } else if page.text_chars >= MIN_TEXT_CHARS {
            Reading::TextLayer
        } else if page.image_coverage >= 0.1 {
            Reading::Ocr
        } else {
            Reading::Nothing
        };
        PageRoute {
            reading,
            embed: reading != Reading::Nothing,
            store: true,
            labels: if is_contract {
                vec![make_label("columns", if two_columns { "2" } else { "1" })]
            } else {
                Vec::new()
            },
        }
    }

    fn failed(&mut self, failure: Failure) -> Verdict {
        match failure.kind.as_str() {
            "page-unreadable" | "page-too-large" | "page-timeout" | "worker-died" | "model-input" => {
                Verdict::SkipPage
            }
            "model-queue-full" if failure.attempt < 5 => {
                Verdict::RetryAfter(250 << failure.attempt.saturating_sub(1))
            }
            _ => Verdict::FailDocument,
        }
    }
}

/// Reads the start of the first page. Returns an empty text if that fails.
fn read_opening(facts: &DocumentFacts) -> String {
    let has_text = facts
        .first_pages
        .first()
        .is_some_and(|page| page.text_chars >= MIN_TEXT_CHARS);
    let seen = if has_text {
        rasterizer::text(&facts.document, 1).map(|text| text.chars().take(OPENING_CHARS).collect())
    } else {
        recognize(&facts.document, 1, TITLE_REGION)
    };
    seen.unwrap_or_else(|refusal| {
        log::warn(&format!(
            "{}: cannot read the start of the first page: {refusal:?}",
            facts.name
        ));
        String::new()
    })
}

fn has_two_columns(document: &DocumentId, page: u32) -> bool {
    match rasterizer::preview(document, page, 128) {
        Ok(picture) => has_gutter(&picture),
        Err(refusal) => {
            log::warn(&format!("page {page}: cannot get a preview: {refusal:?}"));
            false
        }
    }
}

/// Returns whether there is a blank strip in the middle of a page between two printed halves. The top and bottom margins, with titles and
/// page numbers, are ignored.
fn has_gutter(picture: &Picture) -> bool {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let rows: Vec<&[u8]> = picture
        .pixels
        .chunks_exact(width.max(1))
        .take(height - height * 3 / 20)
        .skip(height * 3 / 20)
        .collect();
    let blank = |x: usize| {
        rows.iter()
            .all(|row| row.get(x).is_some_and(|pixel| *pixel >= 250))
    };
    let printed = |from: usize, to: usize| (from..to).any(|x| !blank(x));
    (width * 2 / 5..width * 3 / 5).any(blank) && printed(0, width * 2 / 5) && printed(width * 3 / 5, width)
}

fn make_label(name: &str, value: &str) -> Label {
    Label {
        name: name.into(),
        value: value.into(),
    }
}

weir_sdk::export!(Contracts: Routing);
