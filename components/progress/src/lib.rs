//! The default progress component: percent, pace, time left and what holds the document up.

mod bottleneck;
mod document;
mod pace;

use std::collections::BTreeMap;

use document::Document;
use weir_sdk::DocumentId;
use weir_sdk::progress::{Event, Progress, Update};

/// The documents of the job that are in work.
#[derive(Default)]
struct DefaultProgress {
    documents: BTreeMap<DocumentId, Document>,
}

impl Progress for DefaultProgress {
    fn observe(&mut self, at_millis: u64, event: Event) -> Vec<Update> {
        // An instance that replaces one that was thrown away has not seen its documents start, and says nothing of them.
        let update = match event {
            Event::DocumentStarted(e) => {
                let (id, mut document) = (e.document.clone(), Document::new(at_millis, &e));
                let update = document.update(at_millis);
                self.documents.insert(id, document);
                update
            }
            Event::BatchRasterized(e) => self.with(&e.document, |d| {
                d.rasterized(at_millis, e.pages, &e.queues, &e.times)
            }),
            Event::PageDone(e) => self.with(&e.document, |d| d.page_done(at_millis, e.searchable)),
            Event::PageFailed(e) => self.with(&e.document, |d| d.page_failed(at_millis, &e)),
            Event::DocumentDone(e) => self.documents.remove(&e.document).map(|d| d.done(at_millis)),
            Event::DocumentFailed(e) => self.documents.remove(&e.document).map(|d| d.stopped()),
        };
        update.into_iter().collect()
    }
}

impl DefaultProgress {
    fn with(&mut self, id: &str, event: impl FnOnce(&mut Document) -> Option<Update>) -> Option<Update> {
        self.documents.get_mut(id).and_then(event)
    }
}

weir_sdk::export!(DefaultProgress: Progress);
