"""The role ``progress``: the updates that users see.

A policy has ``observe(at_millis: int, event: Event) -> list[Update]``, called for each event of the job, in order. ``at_millis`` counts
from the job's start. It returns at most 16 updates, and may return none. An event is one of the classes below with the details in its
``value``; use ``match`` to distinguish them.
"""

from wit_world.exports.progress import (
    BatchRasterized,
    DocumentEnded,
    DocumentStarted,
    Event,
    Event_BatchRasterized,
    Event_DocumentDone,
    Event_DocumentFailed,
    Event_DocumentStarted,
    Event_PageDone,
    Event_PageFailed,
    PageDone,
    PageFailed,
    Update,
)

__all__ = [
    "BatchRasterized",
    "DocumentEnded",
    "DocumentStarted",
    "Event",
    "Event_BatchRasterized",
    "Event_DocumentDone",
    "Event_DocumentFailed",
    "Event_DocumentStarted",
    "Event_PageDone",
    "Event_PageFailed",
    "PageDone",
    "PageFailed",
    "Update",
]
