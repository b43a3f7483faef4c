"""The phases of a wake-up, from what Kubernetes, Knative and the predictor say."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.benchmarks.wake.timeline import finished_requests, own_phases, pod_phases

ASKED_AT = 1_764_180_000.5  # 2025-11-26T18:00:00.5Z


def true(kind: str, second: int) -> dict[str, str]:
    return {"type": kind, "status": "True", "lastTransitionTime": f"2025-11-26T18:00:{second:02}Z"}


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "poet-1", "creationTimestamp": "2025-11-26T18:00:01Z"}, "status": status}


STARTED = pod(
    conditions=[true("PodScheduled", 2), true("Ready", 9)],
    containerStatuses=[
        {"name": "queue-proxy", "state": {"running": {"startedAt": "2025-11-26T18:00:08Z"}}},
        {"name": "kserve-container", "state": {"running": {"startedAt": "2025-11-26T18:00:06Z"}}},
    ],
)
EVENTS: list[dict[str, Any]] = [
    {
        "reason": "Pulled",
        "involvedObject": {"name": "poet-1"},
        "eventTime": None,
        "lastTimestamp": "2025-11-26T18:00:05Z",
    },
    {"reason": "Pulled", "involvedObject": {"name": "painter-1"}, "lastTimestamp": "2025-11-26T18:00:59Z"},
    {"reason": "Started", "involvedObject": {"name": "poet-1"}, "lastTimestamp": "2025-11-26T18:00:59Z"},
]
METRICS = """\
# TYPE shangcai_cold_start_phase_seconds gauge
shangcai_cold_start_phase_seconds{phase="port open"} 0.2
shangcai_cold_start_phase_seconds{phase="starting"} 0.25
shangcai_cold_start_phase_seconds{phase="importing torch"} 0.5
shangcai_cold_start_phase_seconds{phase="importing transformers"} 0.25
shangcai_cold_start_phase_seconds{phase="loading the tokenizer"} 0.5
shangcai_cold_start_phase_seconds{phase="loading the weights"} 1.5
shangcai_cold_start_phase_seconds{phase="checking the batch"} 0.125
shangcai_cold_start_phase_seconds{phase="warming up"} 0.125
shangcai_cold_start_phase_seconds{phase="ready"} 3.25
shangcai_request_success_total{finished_reason="stop"} 2.0
shangcai_request_success_total{finished_reason="length"} 1.0
"""


def test_each_phase_of_a_pod_begins_where_the_one_before_ends() -> None:
    assert pod_phases(STARTED, EVENTS, {"status": {"conditions": [true("Active", 9)]}}, ASKED_AT) == {
        "pod made": 0.5,
        "scheduled": 1,
        "image pulled": 3,
        "container started": 1,
        "pod ready": 3,
        "counted as active": 8,
    }


def test_what_is_not_told_is_left_out() -> None:
    assert pod_phases(STARTED, [], {}, ASKED_AT) == {
        "pod made": 0.5,
        "scheduled": 1,
        "container started": 4,
        "pod ready": 3,
    }
    waiting = pod(conditions=[{"type": "PodScheduled", "status": "False"}], containerStatuses=[])
    assert pod_phases(waiting, [], {}, ASKED_AT) == {"pod made": 0.5}
    crashed = pod(containerStatuses=[{"name": "kserve-container", "state": {"waiting": {}}}])
    assert pod_phases(crashed, [], {}, ASKED_AT) == {"pod made": 0.5}


def test_clocks_that_differ_make_no_negative_seconds() -> None:
    assert pod_phases(STARTED, [], {}, ASKED_AT + 30)["pod made"] == 0


def test_the_predictors_phases_are_put_together() -> None:
    assert own_phases(METRICS) == pytest.approx({"imports": 1.0, "weights": 2.0, "checks": 0.25, "process ready": 3.25})
    assert own_phases("up 1\n") == {}


def test_the_warm_up_is_nobodys_request() -> None:
    assert finished_requests(METRICS) == 2
    assert finished_requests("up 1\n") == 0
