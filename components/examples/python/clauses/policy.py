"""Chunking for contracts: passages of whole clauses.

A question about a contract is answered by a clause, so a passage begins with one and ends with one. Clauses that belong together
share a passage as long as they fit: the embedding model is asked how near each of the next ones is to the first, once for a passage,
and where the topic turns a new passage begins. Without the model the length alone decides.
"""

import re
from itertools import pairwise, takewhile
from typing import Sequence

from weir_sdk import Range, log, offsets, policy, settings
from weir_sdk.chunking import InParts, MapReduce, NoSummary, PassageSource, Question, Section, Single, SummaryPlan
from weir_sdk.inference import Refusal, similarities

# Clauses that one is compared to at once, the most the host takes.
COMPARED = 16
# Sections shorter than this are their own summary; longer than the other, they are summarized in parts. In bytes.
SHORT = 400
LONG = 6000
# A clause's number at the beginning of a line: `2.`, `2.1 `, `(a) `, `§ 5`, `Article 5`.
NUMBER = re.compile(r"[ \t\r]*(§|(Article|Section|Clause) [0-9]|\([0-9A-Za-z]{1,3}\) |([0-9][0-9.]*) )")
SPACE = " \t\n\r"

Span = tuple[int, int]


class Clauses:
    def __init__(self) -> None:
        # Longest passage, in bytes; texts that are compared may have 2 KiB.
        self.passage_bytes = settings.within("passage-bytes", 900, 100, 2000)
        # Similarity below which the topic has turned.
        self.turn = settings.within("turn", 0.35, -1.0, 1.0)

    def passages(self, source: PassageSource) -> list[Range]:
        text, at = source.text, offsets(source.text)
        starts = {heading.at.start for heading in source.headings}
        rest = clauses(text, at, starts, self.passage_bytes)
        passages = []
        while rest:
            last = self.near(text, at, rest)
            passages.append(Range(at[rest[0][0]], at[rest[last][1]]))
            rest = rest[last + 1 :]
        return passages

    def summarize(self, section: Section) -> SummaryPlan:
        at = offsets(section.text)
        clause = Question("Say in two sentences what these clauses oblige each party to.\n\n{text}", 120)
        if at[-1] < SHORT:
            return NoSummary()
        if at[-1] <= LONG:
            return Single(clause)
        reduce = Question("Put these summaries together in five sentences, the duties first.\n\n{text}", 250)
        return InParts(MapReduce(packed(clauses(section.text, at, set(), LONG), at), clause, reduce))

    def near(self, text: str, at: Sequence[int], rest: list[Span]) -> int:
        """How many clauses belong to the first one, beside itself."""
        first, following = rest[0], rest[1 : 1 + COMPARED]
        fitting = takewhile(lambda clause: at[clause[1]] - at[first[0]] <= self.passage_bytes, following)
        others = [text[start:end] for start, end in fitting]
        if not others:
            return 0
        try:
            near = similarities(text[first[0] : first[1]], others)
        except Refusal as refusal:
            log.warn(f"cut by length alone: {refusal}")
            return len(others)
        return len(list(takewhile(lambda similarity: similarity >= self.turn, near)))


def clauses(text: str, at: Sequence[int], headings: set[int], most: int) -> list[Span]:
    """The clauses of a text as positions in it, none longer than `most` bytes and without the space around them.

    A clause begins at its number, at a heading and behind a blank line.
    """
    starts = [0]
    start, blank = 0, False
    for line in text.split("\n"):
        if blank or begins_clause(line) or at[start] in headings:
            starts.append(start)
        blank = not line.strip(SPACE)
        start += len(line) + 1
    starts.append(len(text))
    return [part for begin, end in pairwise(starts) for part in split(text, at, begin, end, most)]


def begins_clause(line: str) -> bool:
    number = NUMBER.match(line)
    return number is not None and (number[3] is None or ("." in number[3] and len(number[3]) <= 12))


def split(text: str, at: Sequence[int], start: int, end: int, most: int) -> list[Span]:
    """A clause in parts of at most `most` bytes, cut behind a sentence, else behind a word."""
    parts = []
    start, end = trimmed(text, start, end)
    while at[end] - at[start] > most:
        limit = end
        while at[limit] - at[start] > most:
            limit -= 1
        sentence = max(text.rfind(". ", start, limit), text.rfind(".\n", start, limit))
        word = max(text.rfind(" ", start, limit), text.rfind("\n", start, limit))
        cut = sentence + 2 if sentence >= 0 else word + 1 if word >= 0 else limit
        parts.append(trimmed(text, start, cut))
        start, end = trimmed(text, cut, end)
    parts.append((start, end))
    return [(start, end) for start, end in parts if start < end]


def packed(all_clauses: list[Span], at: Sequence[int]) -> list[Range]:
    """As many clauses to a part as fit it."""
    parts: list[Range] = []
    for start, end in all_clauses:
        if parts and at[end] - parts[-1].start <= LONG:
            parts[-1].end = at[end]
        else:
            parts.append(Range(at[start], at[end]))
    return parts


def trimmed(text: str, start: int, end: int) -> Span:
    """A span without the space at its ends."""
    while start < end and text[start] in SPACE:
        start += 1
    while end > start and text[end - 1] in SPACE:
        end -= 1
    return start, end


Chunking = policy(Clauses).Chunking
