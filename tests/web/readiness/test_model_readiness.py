"""What a model's readiness says, and whom it notifies; the states themselves are in test_state."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from contract import ModelStatus, ProblemError, problems
from web.readiness.model_readiness import Origin, Readiness
from web.readiness.states_file import StatesFile


@pytest.fixture
def readiness() -> Readiness:
    return Readiness("poet", "text", 60, 600, StatesFile(None))


def test_a_retry_after_is_what_is_left_of_the_wake_up(readiness: Readiness) -> None:
    assert readiness.retry_after == 5  # for nobody knows
    readiness.wakes(time.monotonic(), seconds=4)
    readiness.answered()
    readiness.wakes(time.monotonic(), seconds=1.5)
    assert readiness.retry_after == 3
    readiness.wakes(time.monotonic(), seconds=50)
    assert readiness.retry_after == 1


async def test_a_change_before_the_waiting_begins_is_not_missed(readiness: Readiness) -> None:
    changed = readiness.changed()
    readiness.wakes(time.monotonic(), "reading")
    await asyncio.wait_for(changed, 10)


def test_subscribers_see_every_change_and_where_it_comes_from(readiness: Readiness) -> None:
    seen: list[tuple[str, str | None, Origin]] = []
    readiness.subscribe(lambda status, origin: seen.append((status.state, status.phase, origin)))
    readiness.wakes(time.monotonic(), "reading")
    readiness.wakes(time.monotonic(), "reading")
    readiness.receive(ModelStatus(name="poet", kind="text", state="waking", phase="warming up"))
    readiness.receive(ModelStatus(name="poet", kind="text", state="ready"))
    readiness.answered()
    readiness.receive(ModelStatus(name="poet", kind="text", state="waking"))
    readiness.lost()
    assert seen == [
        ("waking", "reading", "local"),
        ("waking", "warming up", "received"),
        ("ready", None, "received"),
        ("ready", None, "local"),  # the other replica is corrected
        ("unknown", None, "local"),
    ]


async def test_those_who_wait_for_a_change_are_woken(readiness: Readiness) -> None:
    waiting = asyncio.create_task(readiness.changed())
    await asyncio.sleep(0)
    readiness.answered()
    await asyncio.wait_for(waiting, 1)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (problems.LOADING, "waking"),
        (problems.UNAVAILABLE, "unknown"),
        (problems.BAD_UPSTREAM, "unknown"),
        (problems.INVALID_FIELD, "ready"),
        (problems.INTERNAL, "waking"),  # which may be web's own
    ],
    ids=lambda value: getattr(value, "slug", None),
)
def test_what_a_failed_request_says_of_a_model_that_was_waking(
    readiness: Readiness, kind: problems.ProblemType, state: str
) -> None:
    readiness.wakes(time.monotonic())
    readiness.failed(ProblemError(kind, "Because."), time.monotonic())
    assert readiness.state == state


@pytest.mark.parametrize(("seconds", "expected"), [(5, 5), (-5, 0), (1e9, 600), ("long", 0), (None, 0)])
def test_how_long_a_predictor_says_that_it_is_loading_is_bounded(
    readiness: Readiness, seconds: Any, expected: float
) -> None:
    readiness.failed(ProblemError(problems.LOADING, "x", phase="x" * 1_000, seconds=seconds), time.monotonic())
    assert readiness.waking is not None
    assert readiness.waking.seconds == pytest.approx(expected, abs=0.3)
    assert readiness.waking.phase == "x" * 100


@pytest.mark.parametrize(
    ("told", "expected"), [(5, 5), (-5, 0), (1e9, 600), ("long", None), (True, None), (math.nan, None), (10**400, 600)]
)
def test_how_long_a_predictor_says_that_its_starts_take_is_passed_on(
    readiness: Readiness, told: Any, expected: float | None
) -> None:
    problem = ProblemError(problems.LOADING, "x", phase="importing torch", seconds=1, expected_seconds=told)
    readiness.failed(problem, time.monotonic())
    assert readiness.status.expected_seconds == expected
