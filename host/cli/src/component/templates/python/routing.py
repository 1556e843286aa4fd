from weir_sdk import PageFacts
from weir_sdk.routing import Failure, PageRoute, Reading, RetryAfter, SkipPage, Verdict
====
        # Characters from which a page's text layer is trusted.
        self.min_chars = settings.get_or("min-chars", 200)
====
    def page(self, document: str, page: PageFacts) -> PageRoute:
        """A page is read by its text layer, or by OCR if it is a picture; an empty one is kept and not searched."""
        if page.text_chars >= self.min_chars:
            reading = Reading.TEXT_LAYER
        elif page.image_coverage >= 0.1:
            reading = Reading.OCR
        else:
            log.info(f"page {page.number} is empty")
            reading = Reading.NOTHING
        return PageRoute(reading, embed=reading != Reading.NOTHING, store=True, labels=[])

    def failed(self, failure: Failure) -> Verdict:
        """A page has three attempts; then the others go on without it."""
        return RetryAfter(500) if failure.attempt < 3 else SkipPage()
