use weir_sdk::batching::{Batch, Batching, Situation};
====
    /// Resolution of page images in dots per inch.
    dpi: u32,
====
            dpi: settings::within("dpi", 150, 36..=600),
====
impl Batching for Policy {
    /// Plans batches of eight pages. The last batch is embedded without delay.
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
