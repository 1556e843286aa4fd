from weir_sdk import PageFacts
from weir_sdk.routing import Failure, PageRoute, Reading, RetryAfter, SkipPage, Verdict
====
        # Minimum number of characters in a page's text layer; with fewer, the text layer is not used.
        self.min_chars = settings.get_or("min-chars", 200)
====
    def page(self, document: str, page: PageFacts) -> PageRoute:
        """Uses the text layer if it is long enough, otherwise OCR if images cover at least 10 % of the page.

        Other pages are stored but not searchable.
        """
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
