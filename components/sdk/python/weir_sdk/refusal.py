"""What the host raises when it does not do what it was asked for."""

from functools import wraps
from typing import Callable, ParamSpec, TypeVar

from componentize_py_types import Err

P = ParamSpec("P")
R = TypeVar("R")


class Refusal(Exception):
    """The host refused.

    ``kind`` is ``unavailable`` (it has no such thing), ``exhausted`` (the tenant's quota for it is used up), ``invalid`` (an
    argument is outside its limits) or ``failed`` (it was tried and did not work).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def asking(ask: Callable[P, R]) -> Callable[P, R]:
    @wraps(ask)
    def asked(*given: P.args, **named: P.kwargs) -> R:
        try:
            return ask(*given, **named)
        except Err as error:
            refused = error.value
            # The bindings name the cases of a variant Refusal_Unavailable and so on.
            kind = type(refused).__name__.removeprefix("Refusal_").lower()
            raise Refusal(kind, refused.value) from None

    return asked
