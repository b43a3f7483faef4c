"""tests/cluster fails where a scripted cluster misbehaves: by the test that is about it, and not by another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted_cluster.cluster import FAULTS, running

pytestmark = [pytest.mark.slow, pytest.mark.serial, pytest.mark.nightly]

FOUND_BY = {
    "forgets jobs": "test_sleep.py::test_a_job_outlives_web",
    "generates twice": "test_events.py::test_the_same_request_twice_is_generated_once",
    "has no route in a rollout": "test_rollout.py::test_a_rollout_loses_no_request",
    "holds requests while a pod goes": "test_sleep.py::test_no_request_is_lost_around_falling_asleep",
    "keeps what is cancelled": "test_requests.py::test_cancelling_ends_a_generation_and_frees_its_slot",
    "lets too many into a pod": "test_requests.py::test_a_burst_is_answered_and_no_pod_has_more_than_its_slots",
    "wakes no pod": "test_sleep.py::test_a_request_wakes_a_model_that_is_asleep",
}


def test_each_fault_is_tried() -> None:
    assert set(FOUND_BY) == FAULTS


@pytest.mark.parametrize("fault", FOUND_BY)
def test_a_fault_is_found(fault: str, run_cluster_tests: Callable[..., Any], tmp_path: Path) -> None:
    test = f"tests/cluster/{FOUND_BY[fault]}"
    held = fault == "holds requests while a pod goes"
    with running(tmp_path, fault, drain_seconds=12 if held else 3) as cluster:
        ended = run_cluster_tests(cluster, test, seconds=60 if held else 10)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert f"FAILED {test}" in ended.stdout
