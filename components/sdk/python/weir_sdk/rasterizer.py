"""A closer look at a page; the manifest must grant ``rasterizer``. Each function raises :class:`Refusal` if it is refused."""

try:
    from wit_world.imports import rasterizer as _host
    from wit_world.imports.rasterizer import Brightness, Picture
except ImportError:
    raise ImportError('pipeline.toml does not grant it: add "rasterizer" to [capabilities] grant') from None

from .refusal import Refusal, asking

__all__ = ["Brightness", "Picture", "Refusal", "preview", "statistics", "text"]


@asking
def statistics(document: str, page: int) -> Brightness:
    """Brightness of the page drawn small, from 0 (black) to 255 (white)."""
    return _host.statistics(document, page)


@asking
def preview(document: str, page: int, longest_side: int) -> Picture:
    """The page drawn small in gray, row by row, one byte a pixel; ``longest_side`` from 8 to 128 pixels."""
    return _host.preview(document, page, longest_side)


@asking
def text(document: str, page: int) -> str:
    """The page's text layer, cut at 64 KiB."""
    return _host.text(document, page)
