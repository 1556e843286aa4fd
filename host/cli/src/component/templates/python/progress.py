from weir_sdk.progress import (
    Event,
    Event_DocumentDone,
    Event_DocumentFailed,
    Event_DocumentStarted,
    Event_PageDone,
    Update,
)
====
        # Numbers of finished and of requested pages of each document that the job processes now.
        self.pages: dict[str, tuple[int, int]] = {}
        # Whether to send an update for each page.
        self.each_page = settings.get_or("each-page", True)
====
    def observe(self, at_millis: int, event: Event) -> list[Update]:
        """Reports the number of finished pages."""
        match event:
            case Event_DocumentStarted(started):
                self.pages[started.document] = (started.already_done, started.pages)
            case Event_PageDone(page):
                done, pages = self.pages.get(page.document, (0, 0))
                done += 1
                self.pages[page.document] = (done, pages)
                if self.each_page:
                    percent = 100 * done / max(pages, done)
                    return [Update(page.document, percent, f"{done} of {pages} pages", None)]
            case Event_DocumentDone(ended) | Event_DocumentFailed(ended):
                self.pages.pop(ended.document, None)
        return []
