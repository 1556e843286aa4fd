"""Exports a policy and calls its methods."""

from types import SimpleNamespace
from typing import Any, Callable


def policy(policy_class: Callable[[], Any]) -> SimpleNamespace:
    """Turns a class into the component's policy.

    Assign its roles to their names at module level, where the host finds them::

        Routing = policy(TextOnly).Routing

    A component is initialized at build time, without a host. So the class is instantiated at the first call of a job: its constructor
    may read settings, and its fields are the job's memory.
    """
    instances: list[Any] = []

    def get_instance() -> Any:
        if not instances:
            instances.append(policy_class())
        return instances[0]

    class Batching:
        def plan(self, situation: Any) -> Any:
            return get_instance().plan(situation)

    class Routing:
        def document(self, facts: Any) -> Any:
            return _method_or_default(get_instance(), "document", _default_document_route)(facts)

        def page(self, document: str, facts: Any) -> Any:
            return get_instance().page(document, facts)

        def failed(self, failure: Any) -> Any:
            return _method_or_default(get_instance(), "failed", _fail_document)(failure)

    class Chunking:
        def passages(self, source: Any) -> Any:
            return get_instance().passages(source)

        def summarize(self, section: Any) -> Any:
            return _method_or_default(get_instance(), "summarize", _no_summary)(section)

    class Progress:
        def observe(self, at_millis: int, event: Any) -> Any:
            return get_instance().observe(at_millis, event)

    return SimpleNamespace(Batching=Batching, Routing=Routing, Chunking=Chunking, Progress=Progress)


def _method_or_default(policy: Any, method: str, default: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return getattr(policy, method, default)


# A component has only the types of its own roles, so these imports may fail. They are at module level because imports are not possible
# during a call.
try:
    from wit_world.exports import routing as _routing
except ImportError:
    _routing = None
try:
    from wit_world.exports import chunking as _chunking
except ImportError:
    _chunking = None


def _default_document_route(_facts: Any) -> Any:
    models = _routing.ModelPreferences(ocr=None, text_embedding=None)
    return _routing.DocumentRoute("default", _routing.Lane.BULK, models, labels=[])


def _fail_document(_failure: Any) -> Any:
    return _routing.Verdict_FailDocument()


def _no_summary(_section: Any) -> Any:
    return _chunking.SummaryPlan_None_()
