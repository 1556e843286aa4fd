"""The role ``routing``: where a document goes, how each page is read, and what follows a failure.

A policy has

- ``page(document: str, facts: PageFacts) -> PageRoute``, asked once for each page, when its batch has been planned;
- ``document(facts: DocumentFacts) -> DocumentRoute``, asked once for each document; if not given: collection ``default``, lane
  ``bulk``, no labels, the host's models;
- ``failed(failure: Failure) -> Verdict``, asked after each failure of a page; if not given: the document stops.
"""

from wit_world.exports.routing import (
    DocumentFacts,
    DocumentRoute,
    Failure,
    Lane,
    ModelPreferences,
    PageRoute,
    Reading,
    Verdict,
    Verdict_FailDocument as FailDocument,
    Verdict_RetryAfter as RetryAfter,
    Verdict_SkipPage as SkipPage,
)

__all__ = [
    "DocumentFacts",
    "DocumentRoute",
    "FailDocument",
    "Failure",
    "Lane",
    "ModelPreferences",
    "PageRoute",
    "Reading",
    "RetryAfter",
    "SkipPage",
    "Verdict",
]
