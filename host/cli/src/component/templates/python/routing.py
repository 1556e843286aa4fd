from weir_sdk import PageFacts
from weir_sdk.routing import Failure, PageRoute, Reading, RetryAfter, SkipPage, Verdict
====
        # Minimum number of characters to use a page's text layer.
        self.min_chars = settings.get_or("min-chars", 200)
====
    def page(self, document: str, page: PageFacts) -> PageRoute:
        """Reads a page by its text layer, or by OCR if it has images. An empty page is stored but not searchable."""
        if page.text_chars >= self.min_chars:
            reading = Reading.TEXT_LAYER
        elif page.image_coverage >= 0.1:
            reading = Reading.OCR
        else:
            log.info(f"page {page.number} is empty")
            reading = Reading.NOTHING
        return PageRoute(reading, embed=reading != Reading.NOTHING, store=True, labels=[])

    def failed(self, failure: Failure) -> Verdict:
        """Attempts each page up to three times, then skips it."""
        return RetryAfter(500) if failure.attempt < 3 else SkipPage()
