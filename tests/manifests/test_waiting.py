"""What waits for what, in deployments that can never become ready."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from tests.manifests.checks import kustomizations
from tests.manifests.checks.objects import Object
from tests.manifests.checks.references import waiting
from tests.manifests.checks.references.object_set import ObjectSet

DEPLOYMENT = Path(__file__).parents[2] / "deploy" / "laptop-events"

SINK_BINDING = """
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {name: web}
spec:
  subject:
    apiVersion: serving.knative.dev/v1
    kind: Service
    selector: {matchLabels: {app.kubernetes.io/name: web, app.kubernetes.io/part-of: shangcai}}
  sink:
    ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: default}
"""


@pytest.fixture
def objects() -> list[Object]:
    return [Object(copy.deepcopy(thing.document)) for thing in kustomizations.render(DEPLOYMENT)]


def without_sink(objects: list[Object], *dispatching: str) -> list[Object]:
    """With web and inbox as they were until 2026-11: no K_SINK of their own."""
    for thing in objects:
        for container in thing.containers:
            env = [variable for variable in container.get("env") or [] if variable["name"] != "K_SINK"]
            for variable in env:
                if variable["name"] == "DISPATCH":
                    variable["value"] = "events" if thing.name in dispatching else "rest"
            container["env"] = env
    return objects


def test_nothing_waits_in_a_circle(objects: list[Object]) -> None:
    assert list(waiting.check(ObjectSet(objects))) == []


def test_a_dead_letter_sink_that_waits_for_its_broker_is_found(objects: list[Object]) -> None:
    binding = Object(yaml.safe_load(SINK_BINDING))
    [problem] = waiting.check(ObjectSet([*without_sink(objects, "web", "inbox"), binding]))
    assert "none of these is ever ready" in problem
    circle = problem.partition(": ")[2].split(" -> ")
    assert circle[0] == circle[-1]
    assert set(circle) == {
        "SinkBinding.sources.knative.dev/web",
        "Broker.eventing.knative.dev/default",
        "Service.serving.knative.dev/inbox",
    }


def test_web_may_wait_for_a_broker_that_does_not_wait_for_web(objects: list[Object]) -> None:
    binding = Object(yaml.safe_load(SINK_BINDING))
    assert list(waiting.check(ObjectSet([*without_sink(objects, "web"), binding]))) == []


def test_a_sink_that_nobody_gives_is_missed(objects: list[Object]) -> None:
    [problem] = waiting.check(ObjectSet(without_sink(objects, "web")))
    assert problem.startswith("Service.serving.knative.dev/web: dispatches events")


def test_a_subscriber_whose_dead_letters_come_back_to_it_is_found(objects: list[Object]) -> None:
    """A Trigger waits for its Broker, and the Broker here for the Trigger's subscriber's own sink."""
    [broker] = [thing for thing in objects if thing.kind == "Broker.eventing.knative.dev"]
    broker.spec["delivery"]["deadLetterSink"]["ref"] = {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Broker",
        "name": "default",
    }
    [problem] = waiting.check(ObjectSet(objects))
    assert problem.endswith("Broker.eventing.knative.dev/default -> Broker.eventing.knative.dev/default")
