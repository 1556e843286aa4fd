"""Routing for an office that files contracts.

A contract names its type at the beginning. So a document is classified by its title and by the start of its first page: the text
layer if there is one, else OCR of the upper part of the page. The pages of a contract are checked for two columns. A scanner that
writes a text layer mixes the lines of both columns, so OCR is used on scanned pages with two columns.
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

# Number of characters from which a text layer is used.
MIN_TEXT_CHARS = 50
# The part of the first page that contains the title: its upper third.
TITLE_REGION = Region(x=0.0, y=0.0, width=1.0, height=0.33)
# Number of characters of a text layer that are searched for the words.
OPENING_CHARS = 400


class Contracts:
    def __init__(self) -> None:
        words = settings.get_or("words", "contract, agreement, lease").split(",")
        self.words = [word.strip().lower() for word in words if word.strip()]
        # The documents of this job that are contracts.
        self.contracts: set[str] = set()

    def document(self, facts: DocumentFacts) -> DocumentRoute:
        begins = f"{facts.title or ''}\n{read_opening(facts)}".lower()
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
        two_columns = is_contract and page.readable and has_two_columns(document, page.number)
        if not page.readable:
            reading = Reading.NOTHING
        elif two_columns and page.image_coverage >= 0.5:
            reading = Reading.OCR
        elif page.text_chars >= MIN_TEXT_CHARS:
            reading = Reading.TEXT_LAYER
        elif page.image_coverage >= 0.1:
            reading = Reading.OCR
        else:
            reading = Reading.NOTHING
        labels = [Label("columns", "2" if two_columns else "1")] if is_contract else []
        return PageRoute(reading, embed=reading != Reading.NOTHING, store=True, labels=labels)

    def failed(self, failure: Failure) -> Verdict:
        match failure.kind:
            case "page-unreadable" | "page-too-large" | "page-timeout" | "worker-died" | "model-input":
                return SkipPage()
            case "model-queue-full" if failure.attempt < 5:
                return RetryAfter(250 << (failure.attempt - 1))
        return FailDocument()


def read_opening(facts: DocumentFacts) -> str:
    """Reads the start of the first page. Returns an empty text if that fails."""
    try:
        if facts.first_pages and facts.first_pages[0].text_chars >= MIN_TEXT_CHARS:
            return rasterizer.text(facts.document, 1)[:OPENING_CHARS]
        return recognize(facts.document, 1, TITLE_REGION)
    except Refusal as refusal:
        log.warn(f"{facts.name}: cannot read the start of the first page: {refusal}")
        return ""


def has_two_columns(document: str, page: int) -> bool:
    try:
        return has_gutter(rasterizer.preview(document, page, 128))
    except Refusal as refusal:
        log.warn(f"page {page}: cannot get a preview: {refusal}")
        return False


def has_gutter(picture: rasterizer.Picture) -> bool:
    """Returns whether there is a blank strip in the middle of a page between two printed halves.

    The top and bottom margins, with titles and page numbers, are ignored.
    """
    width, height = picture.width, picture.height
    margin = height * 3 // 20
    body = picture.pixels[margin * width : (height - margin) * width]
    blank = [min(body[x::width], default=0) >= 250 for x in range(width)]
    left, right = width * 2 // 5, width * 3 // 5
    return any(blank[left:right]) and not all(blank[:left]) and not all(blank[right:])


Routing = policy(Contracts).Routing
