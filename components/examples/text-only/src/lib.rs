//! A routing policy that reads and stores pages with text and skips the others, such as covers, plates and blank pages.

use weir_sdk::routing::{PageRoute, Reading, Routing};
use weir_sdk::{DocumentId, PageFacts, log, settings};

struct TextOnly {
    min_chars: u32,
}

impl Default for TextOnly {
    fn default() -> Self {
        Self {
            min_chars: settings::get_or("min-chars", 20),
        }
    }
}

impl Routing for TextOnly {
    fn page(&mut self, _document: DocumentId, page: PageFacts) -> PageRoute {
        let has_text = page.text_chars >= self.min_chars;
        if !has_text {
            log::info(&format!(
                "page {} has {} characters and is skipped",
                page.number, page.text_chars
            ));
        }
        PageRoute {
            reading: if has_text {
                Reading::TextLayer
            } else {
                Reading::Nothing
            },
            embed: has_text,
            store: has_text,
            labels: Vec::new(),
        }
    }
}

weir_sdk::export!(TextOnly: Routing);
