//! The default routing component, which chooses a document's collection and lane, how each page is read, and the action after a failure.

mod failures;
mod pages;
mod routing_settings;

use routing_settings::RoutingSettings;
use weir_sdk::routing::{DocumentFacts, DocumentRoute, Failure, PageRoute, Routing, Verdict};
use weir_sdk::{DocumentId, PageFacts};

struct DefaultRouting {
    settings: RoutingSettings,
}

impl Default for DefaultRouting {
    fn default() -> Self {
        Self {
            settings: RoutingSettings::from_settings(),
        }
    }
}

impl Routing for DefaultRouting {
    fn document(&mut self, facts: DocumentFacts) -> DocumentRoute {
        self.settings.route_document(&facts)
    }

    fn page(&mut self, _document: DocumentId, facts: PageFacts) -> PageRoute {
        pages::route_page(&self.settings, &facts)
    }

    fn failed(&mut self, failure: Failure) -> Verdict {
        failures::decide_failure_action(self.settings.on_page_failure, &failure)
    }
}

weir_sdk::export!(DefaultRouting: Routing);
