use weir_sdk::routing::{Failure, PageRoute, Reading, Routing, Verdict};
use weir_sdk::{DocumentId, PageFacts};
====
    /// Minimum number of characters to use a page's text layer.
    min_chars: u32,
====
            min_chars: settings::get_or("min-chars", 200),
====
impl Routing for Policy {
    /// Reads a page by its text layer, or by OCR if it has images. An empty page is stored but not searchable.
    fn page(&mut self, _document: DocumentId, page: PageFacts) -> PageRoute {
        let reading = if page.text_chars >= self.min_chars {
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
            labels: Vec::new(),
        }
    }

    /// Attempts each page up to three times, then skips it.
    fn failed(&mut self, failure: Failure) -> Verdict {
        if failure.attempt < 3 {
            Verdict::RetryAfter(500)
        } else {
            Verdict::SkipPage
        }
    }
}
