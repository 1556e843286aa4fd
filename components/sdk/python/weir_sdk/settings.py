"""The settings of the pipeline's manifest; options of the job override them.

An invalid value raises an error. With a default instead, the component would silently do something that the tenant did not ask for.
"""

from typing import Optional, Sequence, TypeVar

from wit_world.imports import settings as _host

T = TypeVar("T", str, int, float, bool)
N = TypeVar("N", int, float)


def get(name: str) -> Optional[str]:
    """Returns a setting as text, or ``None`` if it is not set."""
    return _host.get(name)


def get_or(name: str, value: T) -> T:
    """Returns a setting, converted to the type of the default ``value``."""
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
        raise ValueError(f"the setting {name} = '{text}' is not of type {type(value).__name__}") from None


def within(name: str, value: N, least: N, most: N) -> N:
    """Returns a number within a range, including both ends."""
    chosen = get_or(name, value)
    if not least <= chosen <= most:
        raise ValueError(f"the setting {name} = '{chosen}' is not within {least} to {most}")
    return chosen


def choice(name: str, value: str, words: Sequence[str]) -> str:
    """Returns one of the ``words``."""
    chosen = get_or(name, value)
    if chosen not in words:
        raise ValueError(f"the setting {name} = '{chosen}' is none of {', '.join(words)}")
    return chosen
