//! Decides correctly in the trial call of a push and on the first page of a job, and then makes the attack that the setting `attack`
//! names.

use weir_hostile::attack;
use weir_sdk::routing::{DocumentFacts, DocumentRoute, PageRoute, Reading, Routing};
use weir_sdk::{DocumentId, PageFacts};

#[derive(Default)]
struct Hostile {
    pages: u32,
}

impl Routing for Hostile {
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        weir_hostile::valid_document_route()
    }

    fn page(&mut self, _document: DocumentId, _facts: PageFacts) -> PageRoute {
        self.pages += 1;
        if self.pages < 2 {
            return weir_hostile::valid_page_route();
        }
        match weir_sdk::settings::get("attack").as_deref() {
            Some("loop") => attack::loop_forever(),
            Some("trap") => attack::trap(),
            Some("memory") => attack::exhaust_memory(),
            Some("stack") => attack::overflow_stack(),
            Some("copy") => attack::copy_memory_forever(),
            Some("log") => attack::flood_log_forever(),
            Some("state") => attack::fill_state(),
            Some("host-calls") => attack::flood_host_calls(),
            Some("handles") => attack::leak_handles(),
            Some("sleep") => attack::sleep_forever(),
            Some("huge-decision") => return weir_hostile::huge_page_route(),
            Some("invalid-decision") => {
                return PageRoute {
                    reading: Reading::Nothing,
                    ..weir_hostile::valid_page_route()
                };
            }
            _ => {}
        }
        weir_hostile::valid_page_route()
    }
}

weir_sdk::export!(Hostile: Routing);
