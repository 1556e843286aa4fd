"""The role ``chunking``: where text is cut for the index and for summaries.

A policy has

- ``passages(source: PassageSource) -> list[Range]``: returns at most 4096 passages of a page to index, not empty, inside the text, on
  character boundaries and ordered by their starts. Ranges are in bytes: see :func:`weir_sdk.offsets`;
- ``summarize(section: Section) -> SummaryPlan``: plans the summary of a section. Default: no summary.
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
