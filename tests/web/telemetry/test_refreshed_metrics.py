"""What the store says is shown, and a store that is away stops nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from contract import JobState, ProblemError, problems
from tests.support.web.samples import Sample
from web.telemetry import refreshed_metrics
from web.telemetry.name_limit import OTHER
from web.telemetry.refreshed_metrics import RefreshedMetrics
from web.telemetry.store_usage import StoreUsage

NOW = 1_000.0

Usage = Callable[[], Awaitable[StoreUsage]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshed_metrics, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(refreshed_metrics, "LONGEST_SHARE", 0)


async def now() -> float:
    return NOW


def usage(*jobs: tuple[str, JobState, float]) -> StoreUsage:
    found = StoreUsage(300, 1_000)
    for model, state, age in jobs:
        found.add(model, state, NOW - age)
    return found


def shown() -> dict[str, Counter[str]]:
    """How many jobs of each state there are, and the age of the oldest."""
    return {
        model: Counter(
            queued=int(Sample("jobs", model=model, state="queued").value),
            running=int(Sample("jobs", model=model, state="running").value),
            oldest=int(Sample("oldest_job_queued_seconds", model=model).value),
        )
        for model in ("poet", "painter", OTHER)
    }


async def test_what_there_is_and_is_no_more() -> None:
    found = usage(
        ("poet", "queued", 3),
        ("poet", "queued", 7),
        ("poet", "running", 90),
        ("away", "queued", 5),
        ("far", "queued", 6),
    )

    async def ask() -> StoreUsage:
        return found

    metrics = RefreshedMetrics(["poet", "painter"], ask, now)
    await metrics.turn()
    nothing = Counter(queued=0, running=0, oldest=0)
    assert shown() == {
        "poet": Counter(queued=2, running=1, oldest=7),
        "painter": nothing,
        OTHER: Counter(queued=2, running=0, oldest=6),
    }
    assert (Sample("store_bytes").value, Sample("store_most_bytes").value) == (300, 1_000)
    found = StoreUsage(0, 1_000)
    await metrics.turn()
    assert shown() == {"poet": nothing, "painter": nothing, OTHER: nothing}
    assert Sample("store_bytes").value == 0


async def test_a_store_that_is_away_is_told_and_anything_else_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [ProblemError(problems.UNAVAILABLE, "It is away."), RuntimeError("a mistake")]
    noted = []

    async def fail() -> StoreUsage:
        raise errors.pop(0)

    metrics = RefreshedMetrics(["poet"], fail, now, lambda: noted.append("note"))
    with pytest.raises(ProblemError):  # which the loop waits out
        await metrics.turn()
    assert caplog.records == []
    await metrics.turn()
    assert [record.message for record in caplog.records] == ["the metrics of the store are not refreshed"]
    assert noted == ["note", "note"]


@pytest.mark.parametrize(("took", "pause"), [(0.25, 10.0), (2.0, 40.0)])
async def test_a_round_that_takes_long_is_followed_by_a_long_pause(
    monkeypatch: pytest.MonkeyPatch, took: float, pause: float
) -> None:
    monkeypatch.undo()
    clock, pauses = 0.0, []

    async def ask() -> StoreUsage:
        nonlocal clock
        clock += took
        return usage()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(refreshed_metrics, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(refreshed_metrics, "asyncio", SimpleNamespace(sleep=sleep))
    await RefreshedMetrics(["poet"], ask, now).turn()
    assert pauses == [pause]
