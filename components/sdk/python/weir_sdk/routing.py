"""The role ``routing``: a document's collection and lane, how each page is read, and the action after a failure.

A policy has

- ``page(document: str, facts: PageFacts) -> PageRoute``, called once for each page, after its batch has been planned;
- ``document(facts: DocumentFacts) -> DocumentRoute``, called once for each document. Default: collection ``default``, lane ``bulk``, no
  labels, the host's models;
- ``failed(failure: Failure) -> Verdict``, called after each failure of a page. Default: the document fails.
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
