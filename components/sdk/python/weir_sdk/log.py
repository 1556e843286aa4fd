"""Writes lines to the job's component log. A job may write 1,000 lines of 1,000 characters."""

from wit_world.imports import log as _host


def debug(message: str) -> None:
    """Writes a line for debugging the component."""
    _host.write(_host.Level.DEBUG, message)


def info(message: str) -> None:
    """Writes a line about a normal event."""
    _host.write(_host.Level.INFO, message)


def warn(message: str) -> None:
    """Writes a line about a problem that the component could handle."""
    _host.write(_host.Level.WARN, message)


def error(message: str) -> None:
    """Writes a line about an error."""
    _host.write(_host.Level.ERROR, message)
