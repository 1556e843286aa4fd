"""Lines for the tenant's log. A job may write 1,000 lines of 1,000 characters."""

from wit_world.imports import log as _host


def debug(message: str) -> None:
    """For someone who looks into the component itself."""
    _host.write(_host.Level.DEBUG, message)


def info(message: str) -> None:
    """What happened."""
    _host.write(_host.Level.INFO, message)


def warn(message: str) -> None:
    """Something that works, but not as it should."""
    _host.write(_host.Level.WARN, message)


def error(message: str) -> None:
    """Something that does not work."""
    _host.write(_host.Level.ERROR, message)
