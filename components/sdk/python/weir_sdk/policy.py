"""From the host's call to the policy's method."""

from types import SimpleNamespace
from typing import Any, Callable


def policy(make: Callable[[], Any]) -> SimpleNamespace:
    """Makes a class the component's policy.

    Bind the roles it has to their names at the top of the file, where the host finds them::

        Routing = policy(TextOnly).Routing

    A component is initialized when it is built, long before there is a host to ask, so the class is instantiated at the first
    call of a job: it may read settings when it is, and what it keeps in its fields is that job's memory.
    """
    made: list[Any] = []

    def the() -> Any:
        if not made:
            made.append(make())
        return made[0]

    class Batching:
        def plan(self, situation: Any) -> Any:
            return the().plan(situation)

    class Routing:
        def document(self, facts: Any) -> Any:
            return _given(the(), "document", _nowhere_in_particular)(facts)

        def page(self, document: str, facts: Any) -> Any:
            return the().page(document, facts)

        def failed(self, failure: Any) -> Any:
            return _given(the(), "failed", _fail_document)(failure)

    class Chunking:
        def passages(self, source: Any) -> Any:
            return the().passages(source)

        def summarize(self, section: Any) -> Any:
            return _given(the(), "summarize", _no_summary)(section)

    class Progress:
        def observe(self, at_millis: int, event: Any) -> Any:
            return the().observe(at_millis, event)

    return SimpleNamespace(Batching=Batching, Routing=Routing, Chunking=Chunking, Progress=Progress)


def _given(policy: Any, method: str, otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return getattr(policy, method, otherwise)


# A component has the types of its own roles only, hence the try. They are resolved here because nothing can be imported any
# more when the host calls.
try:
    from wit_world.exports import routing as _routing
except ImportError:
    _routing = None
try:
    from wit_world.exports import chunking as _chunking
except ImportError:
    _chunking = None


def _nowhere_in_particular(_facts: Any) -> Any:
    models = _routing.ModelPreferences(ocr=None, text_embedding=None)
    return _routing.DocumentRoute("default", _routing.Lane.BULK, models, labels=[])


def _fail_document(_failure: Any) -> Any:
    return _routing.Verdict_FailDocument()


def _no_summary(_section: Any) -> Any:
    return _chunking.SummaryPlan_None_()
