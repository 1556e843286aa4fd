"""Routing for an office that files contracts.

A contract says what it is where it begins. So a document is told by its title and by how its first page opens: the text layer if
there is one, else the upper part of the page, recognized. The pages of a contract are looked at for columns. A scanner that writes a
text layer writes each line across both of them, so a scanned page in two columns is recognized anew.
"""

from weir_sdk import Label, PageFacts, log, policy, rasterizer, settings
from weir_sdk.inference import Refusal, Region, recognize
from weir_sdk.routing import (
    DocumentFacts,
    DocumentRoute,
    FailDocument,
    Failure,
    Lane,
    ModelPreferences,
    PageRoute,
    Reading,
    RetryAfter,
    SkipPage,
    Verdict,
)

# Characters from which a text layer is taken for one.
TEXT = 50
# Where a title stands: the upper third of the first page.
OPENING = Region(x=0.0, y=0.0, width=1.0, height=0.33)
# Characters of a text layer that count as its opening.
OPENING_CHARS = 400


class Contracts:
    def __init__(self) -> None:
        words = settings.get_or("words", "contract, agreement, lease").split(",")
        self.words = [word.strip().lower() for word in words if word.strip()]
        # Documents of this job that are contracts.
        self.contracts: set[str] = set()

    def document(self, facts: DocumentFacts) -> DocumentRoute:
        begins = f"{facts.title or ''}\n{opening(facts)}".lower()
        is_contract = any(word in begins for word in self.words)
        if is_contract:
            self.contracts.add(facts.document)
        return DocumentRoute(
            collection="contracts" if is_contract else "default",
            lane=Lane.INTERACTIVE if is_contract else Lane.BULK,
            models=ModelPreferences(ocr=None, text_embedding=None),
            labels=[Label("kind", "contract")] if is_contract else [],
        )

    def page(self, document: str, page: PageFacts) -> PageRoute:
        is_contract = document in self.contracts
        two_columns = is_contract and page.readable and in_two_columns(document, page.number)
        if not page.readable:
            reading = Reading.NOTHING
        elif two_columns and page.image_coverage >= 0.5:
            reading = Reading.OCR
        elif page.text_chars >= TEXT:
            reading = Reading.TEXT_LAYER
        elif page.image_coverage >= 0.1:
            reading = Reading.OCR
        else:
            reading = Reading.NOTHING
        labels = [Label("columns", "2" if two_columns else "1")] if is_contract else []
        return PageRoute(reading, embed=reading != Reading.NOTHING, store=True, labels=labels)

    def failed(self, failure: Failure) -> Verdict:
        match failure.kind:
            case "page-unreadable" | "page-too-large" | "page-deadline" | "worker-died" | "model-input":
                return SkipPage()
            case "model-queue-full" if failure.attempt < 5:
                return RetryAfter(250 << (failure.attempt - 1))
        return FailDocument()


def opening(facts: DocumentFacts) -> str:
    """How the first page begins; nothing, if that cannot be seen."""
    try:
        if facts.first_pages and facts.first_pages[0].text_chars >= TEXT:
            return rasterizer.text(facts.document, 1)[:OPENING_CHARS]
        return recognize(facts.document, 1, OPENING)
    except Refusal as refusal:
        log.warn(f"{facts.name}: its opening cannot be seen: {refusal}")
        return ""


def in_two_columns(document: str, page: int) -> bool:
    try:
        return has_gutter(rasterizer.preview(document, page, 128))
    except Refusal as refusal:
        log.warn(f"page {page} cannot be looked at: {refusal}")
        return False


def has_gutter(picture: rasterizer.Picture) -> bool:
    """Whether a blank strip runs down the middle of a page between two printed halves.

    The margins above and below do not count: titles and page numbers stand there.
    """
    width, height = picture.width, picture.height
    margin = height * 3 // 20
    body = picture.pixels[margin * width : (height - margin) * width]
    blank = [min(body[x::width], default=0) >= 250 for x in range(width)]
    left, right = width * 2 // 5, width * 3 // 5
    return any(blank[left:right]) and not all(blank[:left]) and not all(blank[right:])


Routing = policy(Contracts).Routing
