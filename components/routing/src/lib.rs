//! The default routing component: where a document goes, how each page is read, and what follows a failure.

mod failures;
mod pages;
mod rules;

use rules::Rules;
use weir_sdk::routing::{DocumentFacts, DocumentRoute, Failure, PageRoute, Routing, Verdict};
use weir_sdk::{DocumentId, PageFacts};

struct DefaultRouting {
    rules: Rules,
}

impl Default for DefaultRouting {
    fn default() -> Self {
        Self {
            rules: Rules::from_settings(),
        }
    }
}

impl Routing for DefaultRouting {
    fn document(&mut self, facts: DocumentFacts) -> DocumentRoute {
        self.rules.document(&facts)
    }

    fn page(&mut self, _document: DocumentId, facts: PageFacts) -> PageRoute {
        pages::route(&self.rules, &facts)
    }

    fn failed(&mut self, failure: Failure) -> Verdict {
        failures::verdict(self.rules.on_page_failure, &failure)
    }
}

weir_sdk::export!(DefaultRouting: Routing);
