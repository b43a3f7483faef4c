"""New revisions of web and the predictors, while clients ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.cluster import deployment
from tests.cluster.asking import Asking
from tests.cluster.cluster import Cluster
from tests.cluster.prompts import POEM

pytestmark = [pytest.mark.slow, pytest.mark.serial]


def test_a_rollout_loses_no_request(
    cluster: Cluster, overlay: Path, web: httpx2.Client, asking: Callable[[], Asking]
) -> None:
    web.post("/generate", json=POEM).raise_for_status()  # or nobody is asked before the model is awake
    services = ("web", "text-predictor")
    before = {service: cluster.latest_revision(service) for service in services}
    with asking() as clients:
        deployment.apply(cluster, overlay)
    assert clients.failures == []
    assert len(clients.answers) > 1
    for service in services:
        latest = cluster.latest_revision(service)
        assert latest != before[service]
        traffic = cluster.get("services.serving.knative.dev", service)["status"]["traffic"]
        assert {entry["revisionName"] for entry in traffic if entry.get("percent")} == {latest}
