"""Positions in a text. The contract counts bytes of UTF-8, Python counts characters."""

from itertools import accumulate
from typing import Sequence


def offsets(text: str) -> Sequence[int]:
    """Where each character of a text begins in bytes: ``offsets(text)[i]``, the text's length included."""
    if text.isascii():
        return range(len(text) + 1)
    widths = (1 if c < 0x80 else 2 if c < 0x800 else 3 if c < 0x10000 else 4 for c in map(ord, text))
    return list(accumulate(widths, initial=0))
