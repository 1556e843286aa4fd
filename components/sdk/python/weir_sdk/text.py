"""Converts positions in a text: the contract counts UTF-8 bytes, Python counts characters."""

from itertools import accumulate
from typing import Sequence


def offsets(text: str) -> Sequence[int]:
    """Returns the UTF-8 byte offset of each character, ``offsets(text)[i]``; the last entry is the length in bytes."""
    if text.isascii():
        return range(len(text) + 1)
    widths = (1 if c < 0x80 else 2 if c < 0x800 else 3 if c < 0x10000 else 4 for c in map(ord, text))
    return list(accumulate(widths, initial=0))
