use weir_sdk::routing::{Failure, PageRoute, Reading, Routing, Verdict};
use weir_sdk::{DocumentId, PageFacts};
====
    /// Minimum number of characters in a page's text layer; with fewer, the text layer is not used.
    min_chars: u32,
====
            min_chars: settings::get_or("min-chars", 200),
====
impl Routing for Policy {
    /// Uses the text layer if it is long enough, otherwise OCR if images cover at least 10 % of the page. Other pages are
    /// stored but not searchable.
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
