//! Routing for an office that files contracts.
//!
//! A contract says what it is where it begins. So a document is told by its title and by how its first page opens: the text layer
//! if there is one, else the upper part of the page, recognized. The pages of a contract are looked at for columns. A scanner that
//! writes a text layer writes each line across both of them, so a scanned page in two columns is recognized anew.

use std::collections::HashSet;

use weir_sdk::inference::{Region, recognize};
use weir_sdk::rasterizer::{self, Picture};
use weir_sdk::routing::{
    DocumentFacts, DocumentRoute, Failure, Lane, ModelPreferences, PageRoute, Reading, Routing, Verdict,
};
use weir_sdk::{DocumentId, Label, PageFacts, log, settings};

/// Characters from which a text layer is taken for one.
const TEXT: u32 = 50;
/// Where a title stands: the upper third of the first page.
const OPENING: Region = Region {
    x: 0.0,
    y: 0.0,
    width: 1.0,
    height: 0.33,
};
/// Characters of a text layer that count as its opening.
const OPENING_CHARS: usize = 400;

struct Contracts {
    words: Vec<String>,
    /// Documents of this job that are contracts.
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
        let begins = format!("{title}\n{}", opening(&facts)).to_lowercase();
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
                vec![label("kind", "contract")]
            } else {
                Vec::new()
            },
        }
    }

    fn page(&mut self, document: DocumentId, page: PageFacts) -> PageRoute {
        let is_contract = self.contracts.contains(&document);
        let two_columns = is_contract && page.readable && in_two_columns(&document, page.number);
        let reading = if !page.readable {
            Reading::Nothing
        } else if two_columns && page.image_coverage >= 0.5 {
            Reading::Ocr
        } else if page.text_chars >= TEXT {
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
                vec![label("columns", if two_columns { "2" } else { "1" })]
            } else {
                Vec::new()
            },
        }
    }

    fn failed(&mut self, failure: Failure) -> Verdict {
        match failure.kind.as_str() {
            "page-unreadable" | "page-too-large" | "page-deadline" | "worker-died" | "model-input" => {
                Verdict::SkipPage
            }
            "model-queue-full" if failure.attempt < 5 => {
                Verdict::RetryAfter(250 << failure.attempt.saturating_sub(1))
            }
            _ => Verdict::FailDocument,
        }
    }
}

/// How the first page begins; nothing, if that cannot be seen.
fn opening(facts: &DocumentFacts) -> String {
    let has_text = facts
        .first_pages
        .first()
        .is_some_and(|page| page.text_chars >= TEXT);
    let seen = if has_text {
        rasterizer::text(&facts.document, 1).map(|text| text.chars().take(OPENING_CHARS).collect())
    } else {
        recognize(&facts.document, 1, OPENING)
    };
    seen.unwrap_or_else(|refusal| {
        log::warn(&format!(
            "{}: its opening cannot be seen: {refusal:?}",
            facts.name
        ));
        String::new()
    })
}

fn in_two_columns(document: &DocumentId, page: u32) -> bool {
    match rasterizer::preview(document, page, 128) {
        Ok(picture) => has_gutter(&picture),
        Err(refusal) => {
            log::warn(&format!("page {page} cannot be looked at: {refusal:?}"));
            false
        }
    }
}

/// Whether a blank strip runs down the middle of a page between two printed halves. The margins above and below do not count:
/// titles and page numbers stand there.
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

fn label(name: &str, value: &str) -> Label {
    Label {
        name: name.into(),
        value: value.into(),
    }
}

weir_sdk::export!(Contracts: Routing);
