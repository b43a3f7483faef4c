"""Events on a real cluster: a publisher, the Broker, the predictors, a subscriber; and web's own requests as events.

An overlay without a Broker is rolled out to the one that has it (deploy/laptop to deploy/laptop-events, deploy/gpu to
deploy/events) while clients ask, and back. Where its class of Broker is not installed, all of this is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cluster import deployment, probe_pod
from tests.cluster.asking import Asking
from tests.cluster.cluster import PAUSE_SECONDS, Cluster
from tests.cluster.probe_pod import Probe
from tests.cluster.prompts import POEM
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.serial]

WITH_EVENTS = {"deploy/laptop": "deploy/laptop-events", "deploy/gpu": "deploy/events"}
CONTROLLERS = {"MTChannelBasedBroker": "mt-broker-controller", "Kafka": "kafka-controller"}
"""The Deployment in knative-eventing that makes a class of Broker work."""

CLASS = "eventing.knative.dev/broker.class"
RESULT_SECONDS = 900.0


@pytest.fixture(scope="module")
def events_overlay(cluster: Cluster, overlay: Path) -> Path:
    """The overlay with a Broker; skips where there is none, or the cluster has none of its class."""
    documents = deployment.render(overlay, cluster.namespace)
    if not [item for item in documents if item["kind"] == "Broker"]:
        name = WITH_EVENTS.get(str(overlay.relative_to(ROOT)) if overlay.is_relative_to(ROOT) else "")
        if name is None:
            pytest.skip(f"{overlay} has no Broker")
        overlay = ROOT / name
        documents = deployment.render(overlay, cluster.namespace)
    [broker] = [item for item in documents if item["kind"] == "Broker"]
    kind = broker["metadata"]["annotations"][CLASS]
    installed = cluster.get("deployments.apps", "--namespace=knative-eventing")["items"]
    if CONTROLLERS.get(kind) not in [item["metadata"]["name"] for item in installed]:
        pytest.skip(f"the cluster has no Broker of class {kind}: {CONTROLLERS.get(kind)} is not there")
    return overlay


@pytest.fixture(scope="module")
def rollout(cluster: Cluster, overlay: Path, events_overlay: Path, web: httpx2.Client) -> Iterator[Asking]:
    """The overlay with a Broker, ready, and the clients that asked while it was rolled out."""
    with Asking(web) as clients:
        documents = deployment.apply(cluster, events_overlay)
    yield clients
    if events_overlay != overlay:
        deployment.remove(cluster, documents, deployment.apply(cluster, overlay))


@pytest.fixture(scope="module")
def probe(cluster: Cluster, rollout: Asking) -> Iterator[Probe]:
    with probe_pod.running(cluster) as probe:
        yield probe


def test_a_rollout_to_events_loses_no_request(rollout: Asking) -> None:
    assert rollout.failures == []
    assert len(rollout.answers) > 1


def test_in_events_mode_a_client_sees_no_difference(rollout: Asking, web: httpx2.Client) -> None:
    result = web.post("/generate", json=POEM).raise_for_status().json()
    assert result["model"] == "text"
    assert result["text"].strip()


def test_a_request_has_a_result_that_is_delivered_until_it_is_accepted(probe: Probe) -> None:
    subject = probe.publish(POEM)

    def accepted() -> list[Any]:
        return [entry for entry in probe.deliveries(subject) if not entry["refused"]]

    [first, *_] = wait_until(accepted, "a result", RESULT_SECONDS, PAUSE_SECONDS)
    assert first["data"]["text"].strip()
    assert first["causationid"] == subject
    refused = [entry for entry in probe.deliveries(subject) if entry["refused"]]
    assert [entry["id"] for entry in refused] == [first["id"]]


def test_the_same_request_twice_is_generated_once(probe: Probe) -> None:
    subject = probe.publish(POEM)

    def delivered(count: int) -> Callable[[], bool]:
        return lambda: len(probe.deliveries(subject)) >= count

    wait_until(delivered(2), "a result, refused and accepted", RESULT_SECONDS, PAUSE_SECONDS)
    before = len(probe.deliveries(subject))
    probe.publish(POEM, subject)
    wait_until(delivered(before + 1), "the result again", 300, PAUSE_SECONDS)
    replies = probe.deliveries(subject)
    assert len({entry["id"] for entry in replies}) == 1
    assert len({entry["data"]["text"] for entry in replies}) == 1  # without a seed, a second generation would differ
