"""Calls models. The manifest must grant ``inference``; the time is charged to the tenant.

Each function raises :class:`Refusal` if the host refuses.
"""

from typing import Sequence

try:
    from wit_world.imports import inference as _host
    from wit_world.imports.inference import Region
except ImportError:
    raise ImportError('pipeline.toml does not grant inference: add "inference" to [capabilities] grant') from None

from .refusal import Refusal, raises_refusal

__all__ = ["Refusal", "Region", "count_tokens", "generate", "recognize", "similarities"]


@raises_refusal
def count_tokens(text: str) -> int:
    """Counts the tokens of the embedding model in a text of at most 64 KiB."""
    return _host.count_tokens(text)


@raises_refusal
def similarities(text: str, others: Sequence[str]) -> list[float]:
    """Returns the cosine similarities, from -1 to 1, of a text to up to 16 others. Each text has at most 2 KiB."""
    return _host.similarities(text, list(others))


@raises_refusal
def recognize(document: str, page: int, region: Region) -> str:
    """Runs OCR on a part of a page, given in fractions of its width and height from the upper left corner."""
    return _host.recognize(document, page, region)


@raises_refusal
def generate(prompt: str, max_tokens: int) -> str:
    """Sends a prompt of at most 64 KiB to the language model. The response has at most ``max_tokens`` (1 to 4096) tokens."""
    return _host.generate(prompt, max_tokens)
