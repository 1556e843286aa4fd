use weir_sdk::batching::{Batch, Batching, Situation};
====
    /// Resolution of page images.
    dpi: u32,
====
            dpi: settings::within("dpi", 150, 36..=600),
====
impl Batching for Policy {
    /// Eight pages at a time; the last ones wait for nothing.
    fn plan(&mut self, situation: Situation) -> Batch {
        let pages = situation.remaining_pages.min(8);
        let last = pages == situation.remaining_pages;
        Batch {
            pages,
            dpi: self.dpi,
            linger_millis: if last { 0 } else { 500 },
            queue_capacity: 8,
        }
    }
}
