"""The role ``batching``: the number of pages in the next batch, and their resolution.

A policy has ``plan(situation: Situation) -> Batch``, called before each batch of a document, while at least one page is left. A batch
has 1 to 64 pages at 36 to 600 dpi, a linger of at most 10,000 ms and a queue capacity of 1 to 64.
"""

from wit_world.exports.batching import Batch, Device, DeviceKind, Situation

__all__ = ["Batch", "Device", "DeviceKind", "Situation"]
