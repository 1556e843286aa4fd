from weir_sdk.progress import Event, Event_DocumentStarted, Event_PageDone, Update
====
        # Number of pages of the document, and number of finished pages.
        self.pages = 0
        self.done = 0
        # Whether to send an update for each page.
        self.each_page = settings.get_or("each-page", True)
====
    def observe(self, at_millis: int, event: Event) -> list[Update]:
        """Reports the number of finished pages."""
        match event:
            case Event_DocumentStarted(started):
                self.pages, self.done = started.pages, started.already_done
            case Event_PageDone(page) if self.each_page:
                self.done += 1
                percent = 100 * self.done / max(self.pages, self.done)
                return [Update(page.document, percent, f"{self.done} of {self.pages} pages", None)]
        return []
