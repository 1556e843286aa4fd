"""Values kept from job to job; the manifest must grant ``state``.

A small key-value store for each tenant and pipeline: at most 1,000 keys of 256 bytes with values of 64 KiB, 1 MiB in all. Each
function raises :class:`Refusal` if it is refused.
"""

from typing import Optional

try:
    from wit_world.imports import state as _host
except ImportError:
    raise ImportError('pipeline.toml does not grant it: add "state" to [capabilities] grant') from None

from .refusal import Refusal, asking

__all__ = ["Refusal", "delete", "get", "set"]


@asking
def get(key: str) -> Optional[bytes]:
    """A value; ``None`` if the key is not set."""
    return _host.get(key)


@asking
def set(key: str, value: bytes) -> None:
    """Sets a value; what is set is seen at once."""
    _host.set(key, value)


@asking
def delete(key: str) -> None:
    """Forgets a key."""
    _host.delete(key)
