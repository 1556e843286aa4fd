"""Models; the manifest must grant ``inference``, and time spent counts as the tenant's.

Each function raises :class:`Refusal` if it is refused.
"""

from typing import Sequence

try:
    from wit_world.imports import inference as _host
    from wit_world.imports.inference import Region
except ImportError:
    raise ImportError('pipeline.toml does not grant it: add "inference" to [capabilities] grant') from None

from .refusal import Refusal, asking

__all__ = ["Refusal", "Region", "count_tokens", "generate", "recognize", "similarities"]


@asking
def count_tokens(text: str) -> int:
    """Tokens the embedding model sees in a text of at most 64 KiB."""
    return _host.count_tokens(text)


@asking
def similarities(text: str, others: Sequence[str]) -> list[float]:
    """Cosine similarity, from -1 to 1, of a text to each of up to 16 others, each at most 2 KiB. Vectors stay with the host."""
    return _host.similarities(text, list(others))


@asking
def recognize(document: str, page: int, region: Region) -> str:
    """Recognizes the text in a part of a page, in shares of its width and height from its upper left corner."""
    return _host.recognize(document, page, region)


@asking
def generate(prompt: str, max_tokens: int) -> str:
    """Asks the language model; a prompt of at most 64 KiB, an answer of at most ``max_tokens`` (1 to 4096) tokens."""
    return _host.generate(prompt, max_tokens)
