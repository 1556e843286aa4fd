use weir_sdk::progress::{DocumentStarted, Event, PageDone, Progress, Update};
====
    /// Number of pages of the document.
    pages: u32,
    /// Number of finished pages.
    done: u32,
    /// Whether to send an update for each page.
    each_page: bool,
====
            pages: 0,
            done: 0,
            each_page: settings::get_or("each-page", true),
====
impl Progress for Policy {
    /// Reports the number of finished pages.
    fn observe(&mut self, _at_millis: u64, event: Event) -> Vec<Update> {
        match event {
            Event::DocumentStarted(DocumentStarted { pages, already_done, .. }) => {
                (self.pages, self.done) = (pages, already_done);
                Vec::new()
            }
            Event::PageDone(PageDone { document, .. }) if self.each_page => {
                self.done += 1;
                vec![Update {
                    document,
                    percent: 100.0 * self.done as f32 / self.pages.max(self.done) as f32,
                    message: format!("{} of {} pages", self.done, self.pages),
                    seconds_left: None,
                }]
            }
            _ => Vec::new(),
        }
    }
}
