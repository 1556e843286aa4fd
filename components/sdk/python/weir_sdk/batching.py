"""The role ``batching``: how many pages to take next, and how finely to draw them.

A policy has ``plan(situation: Situation) -> Batch``, asked before each batch of a document; there is always at least one page
left. A batch has 1 to 64 pages at 36 to 600 dpi, a linger of at most 10,000 ms and a queue capacity of 1 to 64.
"""

from wit_world.exports.batching import Batch, Device, DeviceKind, Situation

__all__ = ["Batch", "Device", "DeviceKind", "Situation"]
