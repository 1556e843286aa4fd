"""Progress in Spanish, with the section being read.

For a long report, "capítulo 7" tells the user more than "42 %". So the text of each finished page is searched for a numbered heading,
and the update names the latest one. There is an update at the start, at each new section, at each step in percent, at each failure and
at the end.
"""

import re
from dataclasses import dataclass
from typing import Optional

from weir_sdk import Stage, policy, rasterizer, settings
from weir_sdk.progress import (
    DocumentEnded,
    DocumentStarted,
    Event,
    Event_DocumentDone,
    Event_DocumentFailed,
    Event_DocumentStarted,
    Event_PageDone,
    Event_PageFailed,
    PageDone,
    PageFailed,
    Update,
)

VERBS = {
    Stage.RASTERIZE: "dibujar",
    Stage.STORE: "guardar",
    Stage.READ: "leer",
    Stage.EMBED: "indexar",
    Stage.UPSERT: "indexar",
}
# A numbered heading: a number and the first character of its title.
HEADING = re.compile(r"[0-9][0-9.]* (.)")


@dataclass
class DocumentProgress:
    """The progress of an active document."""

    started: int
    pages: int
    already_done: int
    done: int
    failed: int = 0
    section: Optional[str] = None
    reported_percent: float = 0.0

    def percent(self) -> float:
        return min((self.done + self.failed) * 100 / max(self.pages, 1), 100.0)

    def seconds_left(self, at_millis: int) -> Optional[int]:
        """Estimates the seconds for the pages left from the rate so far, rounded up; `None` before the first page of this job."""
        new = max(self.done + self.failed - self.already_done, 0) * 1000
        left = max(self.pages - self.done - self.failed, 0)
        elapsed = max(at_millis - self.started, 0)
        return min((elapsed * left + new - 1) // new, 2**32 - 1) if new > 0 else None

    def update(self, at_millis: int, document: str, message: str) -> Update:
        self.reported_percent = self.percent()
        return Update(document, self.reported_percent, message[:500], self.seconds_left(at_millis))


class Spanish:
    def __init__(self) -> None:
        # Increase in percent between two updates.
        self.step = settings.within("step-percent", 5.0, 0.0, 100.0)
        self.documents: dict[str, DocumentProgress] = {}

    def observe(self, at_millis: int, event: Event) -> list[Update]:
        match event:
            case Event_DocumentStarted(started):
                return self.document_started(at_millis, started)
            case Event_PageDone(page):
                return self.page_done(at_millis, page)
            case Event_PageFailed(page):
                return self.page_failed(at_millis, page)
            case Event_DocumentDone(ended):
                return self.document_ended(at_millis, ended, True)
            case Event_DocumentFailed(ended):
                return self.document_ended(at_millis, ended, False)
        return []

    def document_started(self, at_millis: int, event: DocumentStarted) -> list[Update]:
        document = DocumentProgress(at_millis, event.pages, event.already_done, event.already_done)
        self.documents[event.document] = document
        before = f", {event.already_done} ya estaban hechas" if event.already_done else ""
        return [document.update(at_millis, event.document, f"«{event.name}»: {format_pages(event.pages)}{before}")]

    def page_done(self, at_millis: int, event: PageDone) -> list[Update]:
        document = self.documents.get(event.document)
        if document is None:
            return []
        document.done += 1
        section = find_heading(page_text(event.document, event.page))
        is_new = section is not None and section != document.section
        document.section = section or document.section
        ends = document.done + document.failed >= document.pages
        if not is_new and not ends and document.percent() - document.reported_percent < self.step:
            return []
        counted = f"{document.done} de {format_pages(document.pages)}"
        message = f"Leyendo «{document.section}»: {counted}" if document.section else counted
        return [document.update(at_millis, event.document, message)]

    def page_failed(self, at_millis: int, event: PageFailed) -> list[Update]:
        document = self.documents.get(event.document)
        if document is None:
            return []
        document.failed += 1
        message = f"La página {event.page} no se pudo {VERBS[event.stage]}: {event.message}"
        return [document.update(at_millis, event.document, message)]

    def document_ended(self, at_millis: int, event: DocumentEnded, well: bool) -> list[Update]:
        document = self.documents.pop(event.document, None)
        if document is None:
            return []
        tenths = max(at_millis - document.started, 0) // 100
        if well:
            message = f"Listo: {format_pages(event.done)} en {tenths // 10},{tenths % 10} s"
        else:
            message = f"Detenido: {event.done} de {format_pages(document.pages)}"
        if event.failed:
            message += f", {event.failed} con errores"
        update = document.update(at_millis, event.document, message)
        update.percent = 100.0 if well else update.percent
        update.seconds_left = 0 if well else None
        return [update]


def format_pages(count: int) -> str:
    return "1 página" if count == 1 else f"{count} páginas"


def page_text(document: str, page: int) -> str:
    try:
        return rasterizer.text(document, page)
    except rasterizer.Refusal:
        return ""  # the page is done even without its text


def find_heading(text: str) -> Optional[str]:
    """Finds the first line of a page that is a numbered heading: `3 Las compuertas`, `2.1. Alcance`."""
    lines = (line.strip() for line in text.split("\n")[:200])
    return next(filter(is_heading, lines), None)


def is_heading(line: str) -> bool:
    title = HEADING.match(line)
    return title is not None and title[1].isupper() and 5 <= len(line) <= 70 and not line.endswith(".")


Progress = policy(Spanish).Progress
