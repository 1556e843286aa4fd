"""The values of the pipeline's manifest, under those the job was started with.

A value that is not what it should be raises: to go on with a default would do something other than the tenant asked for, and
nobody would notice.
"""

from typing import Optional, Sequence, TypeVar

from wit_world.imports import settings as _host

T = TypeVar("T", str, int, float, bool)
N = TypeVar("N", int, float)


def get(name: str) -> Optional[str]:
    """A setting as text, if it is set."""
    return _host.get(name)


def get_or(name: str, value: T) -> T:
    """A setting of the type of its default."""
    text = get(name)
    if text is None:
        return value
    text = text.strip()
    if isinstance(value, bool):
        if text not in ("true", "false"):
            raise ValueError(f"the setting {name} = '{text}' is neither true nor false")
        return text == "true"
    try:
        return type(value)(text)
    except ValueError:
        raise ValueError(f"the setting {name} = '{text}' is no {type(value).__name__}") from None


def within(name: str, value: N, least: N, most: N) -> N:
    """A number within a range, both ends included."""
    given = get_or(name, value)
    if not least <= given <= most:
        raise ValueError(f"the setting {name} = '{given}' is not within {least} to {most}")
    return given


def choice(name: str, value: str, words: Sequence[str]) -> str:
    """One of a few words."""
    given = get_or(name, value)
    if given not in words:
        raise ValueError(f"the setting {name} = '{given}' is none of {', '.join(words)}")
    return given
