"""The SDK for Weir components in Python.

A policy is a class with the methods of a role, passed to :func:`policy`::

    from weir_sdk import policy, settings
    from weir_sdk.batching import Batch, Situation

    class FixedBatch:
        def __init__(self) -> None:
            self.dpi = settings.within("dpi", 150, 36, 600)

        def plan(self, situation: Situation) -> Batch:
            return Batch(pages=12, dpi=self.dpi, linger_millis=500, queue_capacity=8)

    Batching = policy(FixedBatch).Batching

The names are those of the contract (``wit/``), with ``kebab-case`` written in ``snake_case``. The types come from the bindings
(``wit_world``) that are generated from the contract for the roles and capabilities of the component's manifest.

Each role is a module, and so is each capability that a manifest has to grant (``state``, ``rasterizer``, ``inference``). Importing one
without the role or the grant fails when the component is built.
"""

from wit_world.imports.types import Label, PageFacts, QueueState, Range, Stage, StageTime

from . import log, settings
from .policy import policy
from .text import offsets

__all__ = [
    "Label",
    "PageFacts",
    "QueueState",
    "Range",
    "Stage",
    "StageTime",
    "log",
    "offsets",
    "policy",
    "settings",
]
