use weir_sdk::progress::{DocumentEnded, DocumentStarted, Event, PageDone, Progress, Update};
====
    /// Numbers of finished and of requested pages of each document that the job processes now.
    pages: std::collections::BTreeMap<String, (u32, u32)>,
    /// Whether to send an update for each page.
    each_page: bool,
====
            pages: Default::default(),
            each_page: settings::get_or("each-page", true),
====
impl Progress for Policy {
    /// Reports the number of finished pages.
    fn observe(&mut self, _at_millis: u64, event: Event) -> Vec<Update> {
        match event {
            Event::DocumentStarted(DocumentStarted { document, pages, already_done, .. }) => {
                self.pages.insert(document, (already_done, pages));
            }
            Event::PageDone(PageDone { document, .. }) => {
                let (done, pages) = self.pages.entry(document.clone()).or_default();
                *done += 1;
                if self.each_page {
                    return vec![Update {
                        document,
                        percent: 100.0 * *done as f32 / (*pages).max(*done) as f32,
                        message: format!("{done} of {pages} pages"),
                        seconds_left: None,
                    }];
                }
            }
            Event::DocumentDone(DocumentEnded { document, .. })
            | Event::DocumentFailed(DocumentEnded { document, .. }) => {
                self.pages.remove(&document);
            }
            _ => {}
        }
        Vec::new()
    }
}
