"""What waits for what: an object that becomes ready only once another one is. In a circle, none ever does."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from tests.manifests.checks.objects import Object, environment, walk
from tests.manifests.checks.references.object_set import ObjectSet, kind_of, selects


def check(objects: ObjectSet) -> Iterator[str]:
    graph = {thing.title: {other.title for other in _awaited(objects, thing)} for thing in objects.objects}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"none of these is ever ready, as each waits for the next: {' -> '.join(reversed(error.args[1]))}"
    for thing in objects.objects:
        if _wants_sink(thing) and not any(_binds(other, thing) for other in objects.objects):
            yield f"{thing.title}: dispatches events, and nothing gives it a K_SINK"


def _awaited(objects: ObjectSet, thing: Object) -> Iterator[Object]:
    """References to what has an address only when it is ready: a Trigger's Broker and subscriber, any dead letter
    sink, the sink of a source; and for web, what gives it its sink."""
    for path, value in walk(thing.spec):
        if path.endswith("ref") and isinstance(value, dict):
            other = objects.named.get((kind_of(value), value["name"]))
            yield from () if other is None else (other,)
    if thing.kind == "Trigger.eventing.knative.dev":
        yield from (
            one for one in objects.objects if one.title == f"Broker.eventing.knative.dev/{thing.spec['broker']}"
        )
    if _wants_sink(thing):
        yield from (other for other in objects.objects if _binds(other, thing))


def _wants_sink(thing: Object) -> bool:
    """Whether it is ready only with a K_SINK that its own manifest does not have."""
    values = [environment(container) for container in thing.containers]
    return any(one.get("DISPATCH") == "events" and "K_SINK" not in one for one in values)


def _binds(binding: Object, thing: Object) -> bool:
    if binding.kind != "SinkBinding.sources.knative.dev":
        return False
    subject = binding.spec["subject"]
    named = subject.get("name") == thing.name or ("selector" in subject and selects(subject["selector"], thing.labels))
    return kind_of(subject) == thing.kind and named
