//! The default progress component, which reports percent, page rate, time left and the slowest stage.

mod bottleneck;
mod document;
mod page_rate;

use std::collections::BTreeMap;

use document::DocumentProgress;
use weir_sdk::DocumentId;
use weir_sdk::progress::{Event, Progress, Update};

/// The progress of a job's active documents.
#[derive(Default)]
struct DefaultProgress {
    documents: BTreeMap<DocumentId, DocumentProgress>,
}

impl Progress for DefaultProgress {
    fn observe(&mut self, at_millis: u64, event: Event) -> Vec<Update> {
        // An instance that replaces a trapped one has not received the start of its documents, and does not report them.
        let update = match event {
            Event::DocumentStarted(e) => {
                let (id, mut document) = (e.document.clone(), DocumentProgress::new(at_millis, &e));
                let update = document.next_update(at_millis);
                self.documents.insert(id, document);
                update
            }
            Event::BatchRasterized(e) => self.update_document(&e.document, |d| {
                d.record_rasterized(at_millis, e.pages, &e.queues, &e.times)
            }),
            Event::PageDone(e) => {
                self.update_document(&e.document, |d| d.record_page_done(at_millis, e.searchable))
            }
            Event::PageFailed(e) => {
                self.update_document(&e.document, |d| d.record_page_failed(at_millis, &e))
            }
            Event::DocumentDone(e) => self
                .documents
                .remove(&e.document)
                .map(|d| d.into_done_update(at_millis)),
            Event::DocumentFailed(e) => self
                .documents
                .remove(&e.document)
                .map(|d| d.into_stopped_update()),
        };
        update.into_iter().collect()
    }
}

impl DefaultProgress {
    fn update_document(
        &mut self,
        id: &str,
        event: impl FnOnce(&mut DocumentProgress) -> Option<Update>,
    ) -> Option<Update> {
        self.documents.get_mut(id).and_then(event)
    }
}

weir_sdk::export!(DefaultProgress: Progress);
