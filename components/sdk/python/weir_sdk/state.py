"""Values that are kept between jobs. The manifest must grant ``state``.

A small key-value store for each tenant and pipeline: at most 1,000 keys of 256 bytes with values of 64 KiB, 1 MiB in total. Each
function raises :class:`Refusal` if the host refuses.
"""

from typing import Optional

try:
    from wit_world.imports import state as _host
except ImportError:
    raise ImportError('pipeline.toml does not grant state: add "state" to [capabilities] grant') from None

from .refusal import Refusal, raises_refusal

__all__ = ["Refusal", "delete", "get", "set"]


@raises_refusal
def get(key: str) -> Optional[bytes]:
    """Returns a value, or ``None`` if the key is not set."""
    return _host.get(key)


@raises_refusal
def set(key: str, value: bytes) -> None:
    """Sets a value. Later reads in the same call see it."""
    _host.set(key, value)


@raises_refusal
def delete(key: str) -> None:
    """Deletes a key."""
    _host.delete(key)
