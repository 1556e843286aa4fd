"""The error that capabilities raise when the host refuses a call."""

from functools import wraps
from typing import Callable, ParamSpec, TypeVar

from componentize_py_types import Err

P = ParamSpec("P")
R = TypeVar("R")


class Refusal(Exception):
    """The host refused a call.

    ``kind`` is ``unavailable`` (the requested model or page does not exist), ``exhausted`` (the tenant's quota is exhausted), ``invalid``
    (an argument is outside its limits) or ``failed`` (the host tried and failed).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def raises_refusal(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Err as error:
            refusal = error.value
            # The bindings name the cases of the variant Refusal_Unavailable and so on.
            kind = type(refusal).__name__.removeprefix("Refusal_").lower()
            raise Refusal(kind, refusal.value) from None

    return wrapper
