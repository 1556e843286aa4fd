"""The role ``chunking``: where to cut text, for the index and for summaries.

A policy has

- ``passages(source: PassageSource) -> list[Range]``: the passages of a page to index, not empty, inside the text, on character
  boundaries, in order of their starts, at most 4096. They are counted in bytes: see :func:`weir_sdk.offsets`;
- ``summarize(section: Section) -> SummaryPlan``; if not given, sections are not summarized.
"""

from wit_world.exports.chunking import (
    Heading,
    MapReduce,
    PassageSource,
    Question,
    Section,
    SummaryPlan,
    SummaryPlan_MapReduce as InParts,
    SummaryPlan_None_ as NoSummary,
    SummaryPlan_Single as Single,
)

__all__ = [
    "Heading",
    "InParts",
    "MapReduce",
    "NoSummary",
    "PassageSource",
    "Question",
    "Section",
    "Single",
    "SummaryPlan",
]
