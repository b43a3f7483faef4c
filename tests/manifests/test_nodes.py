"""What has nodes ready before a model wakes: the image on them, and a place that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manifests.checks.kustomizations import render
from tests.manifests.checks.objects import Object


@pytest.fixture
def things(combined: Path) -> dict[str, Object]:
    return {thing.title: thing for thing in render(combined / "deploy" / "test-gpu")}


@pytest.fixture
def predictors(things: dict[str, Object]) -> list[Object]:
    return [thing for thing in things.values() if thing.document["kind"] == "InferenceService"]


@pytest.mark.parametrize("title", ["DaemonSet.apps/prefetch-images", "Deployment.apps/placeholder"])
def test_they_go_where_predictors_go_and_ask_for_an_image_of_that_name(
    things: dict[str, Object], predictors: list[Object], title: str
) -> None:
    [container] = things[title].containers
    for predictor in predictors:
        assert things[title].pod["tolerations"] == predictor.pod["tolerations"]
        image = predictor.containers[0]["image"]
        assert image.rpartition("/")[2] == container["image"].rpartition("/")[2]


def test_a_placeholder_keeps_the_place_of_a_predictor_and_gives_way(
    things: dict[str, Object], predictors: list[Object]
) -> None:
    placeholder = things["Deployment.apps/placeholder"]
    resources = placeholder.containers[0]["resources"]
    for predictor in predictors:
        wanted = predictor.containers[0]["resources"]
        assert resources["requests"] == wanted["requests"]
        assert resources["limits"]["nvidia.com/gpu"] == wanted["limits"]["nvidia.com/gpu"]
        assert "priorityClassName" not in predictor.pod  # so its priority is 0
    assert placeholder.pod["terminationGracePeriodSeconds"] == 1
    priority = things[f"PriorityClass.scheduling.k8s.io/{placeholder.pod['priorityClassName']}"]
    assert -10 <= priority.document["value"] < 0
