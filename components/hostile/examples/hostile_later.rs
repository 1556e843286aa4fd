//! Passes the gate and the first page of a job, and then does on each second page what the setting `attack` says.

use weir_hostile::attack;
use weir_sdk::routing::{DocumentFacts, DocumentRoute, PageRoute, Reading, Routing};
use weir_sdk::{DocumentId, PageFacts};

#[derive(Default)]
struct Hostile {
    pages: u32,
}

impl Routing for Hostile {
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        weir_hostile::document_route()
    }

    fn page(&mut self, _document: DocumentId, _facts: PageFacts) -> PageRoute {
        self.pages += 1;
        if self.pages < 2 {
            return weir_hostile::page_route();
        }
        match weir_sdk::settings::get("attack").as_deref() {
            Some("loop") => attack::endless(),
            Some("trap") => attack::trap(),
            Some("memory") => attack::memory(),
            Some("stack") => attack::stack(),
            Some("copy") => attack::copy(),
            Some("log") => attack::endless_log(),
            Some("state") => attack::state(),
            Some("questions") => attack::questions(),
            Some("handles") => attack::handles(),
            Some("sleep") => attack::sleep(),
            Some("answer") => return weir_hostile::page_route_of_hundred_mebibytes(),
            Some("nonsense") => {
                return PageRoute {
                    reading: Reading::Nothing,
                    ..weir_hostile::page_route()
                };
            }
            _ => {}
        }
        weir_hostile::page_route()
    }
}

weir_sdk::export!(Hostile: Routing);
