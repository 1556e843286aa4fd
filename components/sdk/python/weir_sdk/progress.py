"""The role ``progress``: what the user is told.

A policy has ``observe(at_millis: int, event: Event) -> list[Update]``, called for each event of the job, in order; ``at_millis``
counts from the job's start. No update is a fine answer; at most 16 are taken. An event is one of the classes below with what
happened in its ``value``; ``match`` tells them apart.
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
