"""Image statistics, a preview and the text of a page. The manifest must grant ``rasterizer``.

Each function raises :class:`Refusal` if the host refuses.
"""

try:
    from wit_world.imports import rasterizer as _host
    from wit_world.imports.rasterizer import Brightness, Picture
except ImportError:
    raise ImportError('pipeline.toml does not grant rasterizer: add "rasterizer" to [capabilities] grant') from None

from .refusal import Refusal, raises_refusal

__all__ = ["Brightness", "Picture", "Refusal", "preview", "statistics", "text"]


@raises_refusal
def statistics(document: str, page: int) -> Brightness:
    """Returns the brightness of a small image of the page, from 0 (black) to 255 (white)."""
    return _host.statistics(document, page)


@raises_refusal
def preview(document: str, page: int, longest_side: int) -> Picture:
    """Returns a small grayscale image, row by row, one byte for each pixel; ``longest_side`` is from 8 to 128 pixels."""
    return _host.preview(document, page, longest_side)


@raises_refusal
def text(document: str, page: int) -> str:
    """Returns the page's text layer, truncated to 64 KiB."""
    return _host.text(document, page)
