"""Chunking for contracts: passages of whole clauses.

A question about a contract is answered by a clause, so a passage begins and ends with a clause. Clauses on the same topic share a
passage as long as they fit. The embedding model compares the next clauses with the first one, once for each passage; where the
similarity is low, the topic changes and a new passage begins. Without the model, only the length decides.
"""

import re
from itertools import pairwise, takewhile
from typing import Sequence

from weir_sdk import Range, log, offsets, policy, settings
from weir_sdk.chunking import InParts, MapReduce, NoSummary, PassageSource, Question, Section, Single, SummaryPlan
from weir_sdk.inference import Refusal, similarities

# Number of clauses to compare at once, the limit of the host.
MAX_COMPARED = 16
# Sections shorter than this, in bytes, get no summary.
MIN_SUMMARY_BYTES = 400
# Sections longer than this, in bytes, are summarized in parts.
MAX_SINGLE_BYTES = 6000
# The number of a clause at the beginning of a line: `2.`, `2.1 `, `(a) `, `§ 5`, `Article 5`.
NUMBER = re.compile(r"[ \t\r]*(§|(Article|Section|Clause) [0-9]|\([0-9A-Za-z]{1,3}\) |([0-9][0-9.]*) )")
SPACE = " \t\n\r"

Span = tuple[int, int]


class Clauses:
    def __init__(self) -> None:
        # Longest passage, in bytes. Texts to compare may have at most 2 KiB.
        self.passage_bytes = settings.within("passage-bytes", 900, 100, 2000)
        # Similarity below which the topic changes.
        self.min_similarity = settings.within("min-similarity", 0.35, -1.0, 1.0)

    def passages(self, source: PassageSource) -> list[Range]:
        text, at = source.text, offsets(source.text)
        starts = {heading.at.start for heading in source.headings}
        rest = find_clauses(text, at, starts, self.passage_bytes)
        passages = []
        while rest:
            last = self.count_same_topic(text, at, rest)
            passages.append(Range(at[rest[0][0]], at[rest[last][1]]))
            rest = rest[last + 1 :]
        return passages

    def summarize(self, section: Section) -> SummaryPlan:
        at = offsets(section.text)
        clause = Question("Say in two sentences what these clauses oblige each party to.\n\n{text}", 120)
        if at[-1] < MIN_SUMMARY_BYTES:
            return NoSummary()
        if at[-1] <= MAX_SINGLE_BYTES:
            return Single(clause)
        reduce = Question("Put these summaries together in five sentences, the duties first.\n\n{text}", 250)
        return InParts(MapReduce(pack_clauses(find_clauses(section.text, at, set(), MAX_SINGLE_BYTES), at), clause, reduce))

    def count_same_topic(self, text: str, at: Sequence[int], rest: list[Span]) -> int:
        """Counts the clauses after the first one that have its topic."""
        first, following = rest[0], rest[1 : 1 + MAX_COMPARED]
        fitting = takewhile(lambda clause: at[clause[1]] - at[first[0]] <= self.passage_bytes, following)
        others = [text[start:end] for start, end in fitting]
        if not others:
            return 0
        try:
            near = similarities(text[first[0] : first[1]], others)
        except Refusal as refusal:
            log.warn(f"passages are cut by length only: {refusal}")
            return len(others)
        return len(list(takewhile(lambda similarity: similarity >= self.min_similarity, near)))


def find_clauses(text: str, at: Sequence[int], headings: set[int], most: int) -> list[Span]:
    """Splits a text into clauses of at most `most` bytes without the white space around them, as positions in the text.

    A clause begins at its number, at a heading and after a blank line.
    """
    starts = [0]
    start, blank = 0, False
    for line in text.split("\n"):
        if blank or begins_clause(line) or at[start] in headings:
            starts.append(start)
        blank = not line.strip(SPACE)
        start += len(line) + 1
    starts.append(len(text))
    return [part for begin, end in pairwise(starts) for part in split_clause(text, at, begin, end, most)]


def begins_clause(line: str) -> bool:
    number = NUMBER.match(line)
    return number is not None and (number[3] is None or ("." in number[3] and len(number[3]) <= 12))


def split_clause(text: str, at: Sequence[int], start: int, end: int, most: int) -> list[Span]:
    """Splits a clause into parts of at most `most` bytes, after a sentence if possible, else after a word."""
    parts = []
    start, end = trim_span(text, start, end)
    while at[end] - at[start] > most:
        limit = end
        while at[limit] - at[start] > most:
            limit -= 1
        sentence = max(text.rfind(". ", start, limit), text.rfind(".\n", start, limit))
        word = max(text.rfind(" ", start, limit), text.rfind("\n", start, limit))
        cut = sentence + 2 if sentence >= 0 else word + 1 if word >= 0 else limit
        parts.append(trim_span(text, start, cut))
        start, end = trim_span(text, cut, end)
    parts.append((start, end))
    return [(start, end) for start, end in parts if start < end]


def pack_clauses(all_clauses: list[Span], at: Sequence[int]) -> list[Range]:
    """Packs as many clauses as fit into each part of a summary."""
    parts: list[Range] = []
    for start, end in all_clauses:
        if parts and at[end] - parts[-1].start <= MAX_SINGLE_BYTES:
            parts[-1].end = at[end]
        else:
            parts.append(Range(at[start], at[end]))
    return parts


def trim_span(text: str, start: int, end: int) -> Span:
    """Removes the white space at the ends of a span."""
    while start < end and text[start] in SPACE:
        start += 1
    while end > start and text[end - 1] in SPACE:
        end -= 1
    return start, end


Chunking = policy(Clauses).Chunking
