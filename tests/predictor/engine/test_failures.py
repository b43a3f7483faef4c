"""When the engine breaks: whoever runs or waits is told, and the server is told whether to go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

import predictor.engine.scheduler
from contract import problems
from contract.problems import ProblemError, ProblemType
from predictor.engine.admission import ScheduledTask
from predictor.engine.scheduler import FAILURES
from predictor.text.transformers_engine import ScheduledText

pytestmark = pytest.mark.slow


async def end_of(job: ScheduledTask) -> ProblemType | None:
    """The problem that a job ends with; None if it ends well."""
    try:
        await asyncio.wait_for(job.generation.complete(), 60)
    except ProblemError as problem:
        return problem.kind
    return None


async def ends(jobs: list[ScheduledTask]) -> set[ProblemType | None]:
    return {await end_of(job) for job in jobs}


def failing(kitchen: Any, raising: Callable[[], BaseException | None]) -> None:
    """Have steps raise what `raising` returns."""
    step = kitchen.batch.step

    def stepping() -> Any:
        if (error := raising()) is not None:
            raise error
        return step()

    kitchen.batch.step = stepping


async def test_a_step_that_fails_once_is_noticed_by_nobody_but_the_log(
    kitchen: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    untroubled = kitchen(slots=3)
    orders = [untroubled.order(seed=seed) for seed in range(5)]
    untroubled.cook.start()
    expected = [(await job.generation.complete()).text for job in orders]

    shaky = kitchen(slots=3)
    steps: list[None] = []

    def raising() -> Exception | None:
        steps.append(None)
        return ValueError("a hiccup") if len(steps) == 3 else None

    failing(shaky, raising)
    orders = [shaky.order(seed=seed) for seed in range(5)]
    shaky.cook.start()

    assert [(await job.generation.complete()).text for job in orders] == expected
    assert "a hiccup" in caplog.text
    await eventually(lambda: shaky.empty)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_the_one_request_that_the_model_fails_on_is_told_and_the_others_are_served(
    kitchen: Any, eventually: Any, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    poisoned = kitchen(slots=3)
    orders = [poisoned.order() for _ in range(7)]
    poison = orders[place]

    def raising() -> Exception | None:
        served = poisoned.cook._served
        inside = any(served[row][0] is poison for row in (*poisoned.batch.running, *poisoned.batch.joining))
        return ValueError("CUDA error: secret address") if inside else None

    failing(poisoned, raising)
    poisoned.cook.start()

    with pytest.raises(ProblemError) as problem:
        await poison.generation.complete()
    assert problem.value.kind is problems.INTERNAL
    assert "secret" not in str(problem.value.document)
    assert await ends([job for job in orders if job is not poison]) == {None}
    assert poisoned.cook.alive
    assert "secret address" in caplog.text
    await eventually(lambda: poisoned.empty)
    assert poisoned.cook.allowed == 3


async def test_failures_with_successes_between_them_do_not_add_up(kitchen: Any) -> None:
    shaky = kitchen(slots=1)
    ordered: list[int] = []
    failing(shaky, lambda: ValueError("no") if len(ordered) % 2 else None)
    shaky.cook.start()

    for number in range(4 * FAILURES):
        ordered.append(number)
        assert await end_of(shaky.order()) is (problems.INTERNAL if len(ordered) % 2 else None)

    assert shaky.cook.alive


@pytest.mark.parametrize("error", [ValueError("always"), SystemExit(1), KeyboardInterrupt()], ids=repr)
async def test_an_engine_that_only_fails_is_dead_and_nobody_hangs(
    kitchen: Any, eventually: Any, error: BaseException
) -> None:
    dead = kitchen(slots=2)
    failing(dead, lambda: error)
    jobs = [dead.order() for _ in range(2 * FAILURES + 3)]
    dead.cook.start()

    assert await ends(jobs) <= {problems.INTERNAL, problems.UNAVAILABLE}
    await eventually(lambda: not dead.cook.alive)
    with pytest.raises(ProblemError, match="The engine has died"):
        dead.order()
    assert (dead.admission.waiting, dead.admission.served) == (0, 0)


async def test_everyone_is_told_even_if_the_device_raises_at_any_touch(
    kitchen: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA does after an illegal access: taking rows out fails as well."""
    broken = kitchen(slots=4)

    def raising(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    steps: list[None] = []

    def fail_from_the_fourth_on() -> Exception | None:
        steps.append(None)
        return RuntimeError("CUDA error") if len(steps) > 3 else None

    failing(broken, fail_from_the_fourth_on)
    monkeypatch.setattr(broken.batch.cache, "move", raising)
    jobs = [broken.order() for _ in range(6)]
    broken.cook.start()

    assert await ends(jobs) <= {problems.INTERNAL, problems.UNAVAILABLE}
    await eventually(lambda: not broken.cook.alive)
    assert (broken.admission.waiting, broken.admission.served) == (0, 0)


async def test_a_request_that_cannot_be_begun_is_told_and_the_others_go_on(
    kitchen: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = kitchen(slots=3)
    begin = odd.cook._begin

    def beginning(job: ScheduledText) -> Any:
        if job.sampling.max_tokens == 5:
            raise ValueError("an odd one")
        return begin(job)

    monkeypatch.setattr(odd.cook, "_begin", beginning)
    first, bad, last = odd.order(), odd.order(max_tokens=5), odd.order()
    odd.cook.start()

    assert await end_of(bad) is problems.INTERNAL
    assert await ends([first, last]) == {None}
    await eventually(lambda: odd.empty)


async def test_a_step_that_is_stuck_makes_a_dead_engine(
    kitchen: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor.engine.scheduler, "STALL_SECONDS", 0.05)
    stuck = kitchen(slots=1)
    gate = Event()
    failing(stuck, lambda: None if gate.wait(60) else TimeoutError())
    stuck.cook.start()
    assert stuck.cook.alive
    job = stuck.order()

    await eventually(lambda: not stuck.cook.alive)

    gate.set()
    assert await end_of(job) is None
    await eventually(lambda: stuck.cook.alive)


async def test_an_idle_engine_is_not_a_stuck_one(
    kitchen: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = kitchen(slots=1)
    idle.cook.start()
    await end_of(idle.order())
    await eventually(lambda: idle.cook._beat_at is None)
    later = time.monotonic() + 1_000
    monkeypatch.setattr("predictor.engine.scheduler.time.monotonic", lambda: later)

    assert idle.cook.alive


async def test_closing_ends_what_runs_what_waits_and_what_comes(kitchen: Any, eventually: Any) -> None:
    closed = kitchen(slots=2)
    jobs = [closed.order(max_tokens=250) for _ in range(5)]
    closed.cook.start()
    await eventually(lambda: len(closed.batch.running) == 2)

    closed.cook.close(ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1))

    assert await ends(jobs) == {problems.UNAVAILABLE}
    with pytest.raises(ProblemError, match="shutting down"):
        closed.order()
    await eventually(lambda: not closed.cook.alive)
    assert (closed.admission.waiting, closed.admission.served) == (0, 0)


async def test_an_idle_engine_can_be_closed(kitchen: Any, eventually: Any) -> None:
    idle = kitchen()
    idle.cook.start()

    idle.cook.close(ProblemError(problems.UNAVAILABLE, "closed"))

    await eventually(lambda: not idle.cook.alive)


async def test_one_whose_time_passes_while_it_runs_is_told_so(kitchen: Any, eventually: Any) -> None:
    busy = kitchen(slots=1)
    late = busy.order(max_tokens=250)
    busy.cook.start()
    await eventually(lambda: busy.batch.running)

    late.deadline = 0.0

    assert await end_of(late) is problems.TOO_LATE
    await eventually(lambda: busy.empty)


async def test_one_whose_time_passes_while_it_waits_is_told_before_a_slot_is_free(
    kitchen: Any, eventually: Any
) -> None:
    busy = kitchen(slots=1)
    told = Event()
    steps: list[None] = []

    def wait_at_the_end() -> None:
        steps.append(None)
        if len(steps) == 200:
            told.wait(60)

    failing(busy, wait_at_the_end)
    running = busy.order(max_tokens=250)
    late = busy.order(max_tokens=251)
    busy.cook.start()
    late.deadline = 0.0

    assert await end_of(late) is problems.TOO_LATE
    await eventually(lambda: (busy.admission.waiting, busy.admission.served) == (0, 1))
    told.set()
    assert await end_of(running) is None
