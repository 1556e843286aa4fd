from weir_sdk.batching import Batch, Situation
====
        # Resolution of page images in dots per inch.
        self.dpi = settings.within("dpi", 150, 36, 600)
====
    def plan(self, situation: Situation) -> Batch:
        """Plans batches of eight pages. The last batch is embedded without delay."""
        pages = min(situation.remaining_pages, 8)
        last = pages == situation.remaining_pages
        return Batch(pages, self.dpi, linger_millis=0 if last else 500, queue_capacity=8)
