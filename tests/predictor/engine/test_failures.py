"""When the engine breaks: whoever runs or waits is told, and the server is told whether to go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

import predictor.engine.scheduler
from contract import problems
from contract.problems import ProblemError, ProblemType
from predictor.engine.scheduled_task import ScheduledTask
from predictor.engine.scheduler import FAILURES
from predictor.text.output.text_output import TextOutput
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


async def end_of(task: ScheduledTask) -> ProblemType | None:
    """The problem that a task ends with; None if it ends well."""
    try:
        await asyncio.wait_for(task.generation.complete(), 60)
    except ProblemError as problem:
        return problem.kind
    return None


async def ends(tasks: list[ScheduledTask]) -> set[ProblemType | None]:
    return {await end_of(task) for task in tasks}


def failing(harness: Any, raising: Callable[[], BaseException | None]) -> None:
    """Have steps raise what `raising` returns."""
    step = harness.batch.step

    def stepping() -> Any:
        if (error := raising()) is not None:
            raise error
        return step()

    harness.batch.step = stepping


@pytest.mark.parametrize("on_gpu", [False, True])
async def test_steps_that_fail_now_and_then_are_noticed_by_nobody_but_the_log(
    text_harness: Any, caplog: pytest.LogCaptureFixture, on_gpu: bool
) -> None:
    untroubled = text_harness(slots=3)
    tasks = [untroubled.submit(seed=seed) for seed in range(5)]
    untroubled.start()
    expected = [(await task.generation.complete()).text for task in tasks]

    shaky = text_harness(slots=3)
    shaky.batch.defers_texts = on_gpu
    steps: list[None] = []

    def raising() -> Exception | None:
        steps.append(None)
        return ValueError("a hiccup") if len(steps) in (3, 4, 9, 10, 30) else None

    failing(shaky, raising)
    tasks = [shaky.submit(seed=seed) for seed in range(5)]
    shaky.start()

    assert [(await task.generation.complete()).text for task in tasks] == expected
    assert "a hiccup" in caplog.text
    await shaky.until_idle()


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_the_one_request_that_the_model_fails_on_is_told_and_the_others_are_served(
    text_harness: Any, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    poisoned = text_harness(slots=3)
    tasks = [poisoned.submit("poison" if number == place else "moon") for number in range(7)]
    poison = tasks[place]

    def raising() -> Exception | None:
        rows = (*poisoned.batch.running, *poisoned.batch.joining)
        inside = any(bytes(row.tokens[:6]) == b"poison" for row in rows if max(row.tokens[:6]) < 256)
        return ValueError("CUDA error: secret address") if inside else None

    failing(poisoned, raising)
    poisoned.start()

    with pytest.raises(ProblemError) as problem:
        await poison.generation.complete()
    assert problem.value.kind is problems.INTERNAL
    assert "secret" not in str(problem.value.document)
    assert await ends([task for task in tasks if task is not poison]) == {None}
    assert poisoned.scheduler.alive
    assert "secret address" in caplog.text
    await poisoned.until_idle()
    assert poisoned.snapshot.usable_slots == 3


async def test_failures_with_successes_between_them_do_not_add_up(text_harness: Any) -> None:
    shaky = text_harness(slots=1)
    submitted: list[int] = []
    failing(shaky, lambda: ValueError("no") if len(submitted) % 2 else None)
    shaky.start()

    for number in range(4 * FAILURES):
        submitted.append(number)
        assert await end_of(shaky.submit()) is (problems.INTERNAL if len(submitted) % 2 else None)

    assert shaky.scheduler.alive


async def test_a_request_that_fails_again_and_again_does_not_end_an_engine_that_works(text_harness: Any) -> None:
    poisoned = text_harness(slots=2)
    failing(poisoned, lambda: ValueError("no") if any(len(row.tokens) > 1 for row in poisoned.batch.joining) else None)
    poisoned.start()

    for _ in range(4 * FAILURES):
        assert await end_of(poisoned.submit("poison")) is problems.INTERNAL

    assert poisoned.scheduler.alive
    assert await end_of(poisoned.submit("m")) is None


@pytest.mark.parametrize("error", [ValueError("always"), SystemExit(1), KeyboardInterrupt()], ids=repr)
async def test_an_engine_that_only_fails_is_dead_and_nobody_hangs(text_harness: Any, error: BaseException) -> None:
    dead = text_harness(slots=2)
    failing(dead, lambda: error)
    tasks = [dead.submit() for _ in range(2 * FAILURES + 3)]
    dead.start()

    assert await ends(tasks) <= {problems.INTERNAL, problems.UNAVAILABLE}
    await eventually(lambda: not dead.scheduler.alive)
    with pytest.raises(ProblemError, match="The engine has died"):
        dead.submit()
    assert (dead.admission.waiting, dead.admission.running) == (0, 0)


async def test_everyone_is_told_even_if_the_device_raises_at_any_touch(
    text_harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA does after an illegal access: taking rows out fails as well."""
    broken = text_harness(slots=4)

    def raising(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    steps: list[None] = []

    def fail_from_the_fourth_on() -> Exception | None:
        steps.append(None)
        return RuntimeError("CUDA error") if len(steps) > 3 else None

    failing(broken, fail_from_the_fourth_on)
    monkeypatch.setattr(broken.batch.cache, "move", raising)
    tasks = [broken.submit() for _ in range(6)]
    broken.start()

    assert await ends(tasks) <= {problems.INTERNAL, problems.UNAVAILABLE}
    await eventually(lambda: not broken.scheduler.alive)
    assert (broken.admission.waiting, broken.admission.running) == (0, 0)


async def test_a_request_that_cannot_be_begun_is_told_and_the_others_go_on(text_harness: Any) -> None:
    odd = text_harness(slots=3)
    first, bad, last = odd.submit(), odd.submit(), odd.submit()
    bad.prompt = None
    odd.start()

    assert await end_of(bad) is problems.INTERNAL
    assert await ends([first, last]) == {None}
    await odd.until_idle()


async def test_a_step_that_is_stuck_makes_a_dead_engine(text_harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor.engine.scheduler, "STALL_SECONDS", 0.05)
    stuck = text_harness(slots=1)
    gate = Event()
    failing(stuck, lambda: None if gate.wait(60) else TimeoutError())
    stuck.start()
    assert stuck.scheduler.alive
    task = stuck.submit()

    await eventually(lambda: not stuck.scheduler.alive)

    gate.set()
    assert await end_of(task) is None
    await eventually(lambda: stuck.scheduler.alive)


async def test_a_step_of_many_parts_is_not_stuck_while_each_part_is_quick(
    text_harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep)
    slow = text_harness(slots=1)
    alive: list[bool] = []

    def many_parts() -> None:
        for _ in range(3):
            now[0] += predictor.engine.scheduler.STALL_SECONDS
            alive.append(slow.scheduler.alive)
            slow.batch.heartbeat()
        now[0] += predictor.engine.scheduler.STALL_SECONDS + 1
        alive.append(slow.scheduler.alive)

    failing(slow, many_parts)
    task = slow.submit(max_tokens=1)
    monkeypatch.setattr(predictor.engine.scheduler, "time", clock)
    slow.start()

    assert await end_of(task) is None
    assert alive == [True, True, True, False]


async def test_an_idle_engine_is_not_a_stuck_one(text_harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = text_harness(slots=1)
    idle.start()
    await end_of(idle.submit())
    await eventually(lambda: idle.snapshot.idle)
    later = time.monotonic() + 1_000
    monkeypatch.setattr("predictor.engine.scheduler.time.monotonic", lambda: later)

    assert idle.scheduler.alive


async def test_closing_ends_what_runs_what_waits_and_what_comes(text_harness: Any) -> None:
    closed = text_harness(slots=2)
    tasks = [closed.submit(max_tokens=250) for _ in range(5)]
    closed.start()
    await eventually(lambda: len(closed.batch.running) == 2)

    closed.scheduler.close(ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1))

    assert await ends(tasks) == {problems.UNAVAILABLE}
    with pytest.raises(ProblemError, match="shutting down"):
        closed.submit()
    await eventually(lambda: not closed.scheduler.alive)
    assert (closed.admission.waiting, closed.admission.running) == (0, 0)


async def test_an_idle_engine_can_be_closed(text_harness: Any) -> None:
    idle = text_harness()
    idle.start()

    idle.scheduler.close(ProblemError(problems.UNAVAILABLE, "closed"))

    await eventually(lambda: not idle.scheduler.alive)


async def test_one_whose_time_passes_while_it_runs_is_told_so(text_harness: Any) -> None:
    busy = text_harness(slots=1)
    late = busy.submit(max_tokens=250)
    busy.start()
    await eventually(lambda: busy.batch.running)

    late.deadline = 0.0

    assert await end_of(late) is problems.TOO_LATE
    await busy.until_idle()


async def test_one_whose_time_passes_while_it_waits_is_told_before_a_slot_is_free(text_harness: Any) -> None:
    busy = text_harness(slots=1)
    told = Event()
    steps: list[None] = []

    def wait_at_the_end() -> None:
        steps.append(None)
        if len(steps) == 200:
            told.wait(60)

    failing(busy, wait_at_the_end)
    running = busy.submit(max_tokens=250)
    late = busy.submit(max_tokens=251)
    busy.start()
    late.deadline = 0.0

    assert await end_of(late) is problems.TOO_LATE
    await eventually(lambda: (busy.admission.waiting, busy.admission.running) == (0, 1))
    told.set()
    assert await end_of(running) is None


@pytest.mark.parametrize("method", ["put", "finish"])
async def test_a_text_that_cannot_be_written_down_is_the_only_one_that_is_told(
    text_harness: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Its tokenizer fails, say, after the forward that all have shared."""
    untroubled, troubled = text_harness(slots=3), text_harness(slots=3)
    expected = [untroubled.submit(seed=seed) for seed in range(2)]
    untroubled.start()
    texts = [(await task.generation.complete()).text for task in expected]
    tasks = [troubled.submit(seed=seed) for seed in range(2)]
    bad = troubled.submit()
    original = getattr(TextOutput, method)

    def failing_for_one(output: TextOutput, *arguments: Any) -> Any:
        if output.generation is bad.generation:
            raise ValueError("secret address")
        return original(output, *arguments)

    monkeypatch.setattr(TextOutput, method, failing_for_one)
    steps: list[int] = []
    failing(troubled, lambda: steps.append(len(troubled.batch)))
    troubled.start()

    assert await end_of(bad) is problems.INTERNAL
    assert [(await task.generation.complete()).text for task in tasks] == texts
    assert len(steps) == 12, "a prefill of all and the tokens after it, none of them twice"
    assert "secret address" in caplog.text
    await troubled.until_idle()
    assert troubled.scheduler.alive


@pytest.mark.parametrize("place", [0, 7, 15])
async def test_one_bad_row_of_sixteen_is_found_by_halves_and_the_others_are_together_again(
    text_harness: Any, place: int
) -> None:
    full = text_harness(slots=16)
    tasks = [full.submit(seed=seed, max_tokens=100) for seed in range(16)]
    found: list[int] = []
    sizes: list[int] = []
    bad = tasks[place]

    def raising() -> Exception | None:
        sizes.append(len(full.batch))
        rows = {full.scheduler._running[row][0]: row for row in (*full.batch.running, *full.batch.joining)}
        if bad in rows and len(rows[bad].tokens) > 20:
            found.append(len(sizes))
            return ValueError("shapes cannot be multiplied")
        return None

    failing(full, raising)
    full.start()

    assert await end_of(bad) is problems.INTERNAL
    assert await ends([task for task in tasks if task is not bad]) == {None}
    assert found[-1] - found[0] <= 12, "a step with half of the suspects is one of prompts and one of tokens"
    assert sizes[found[-1]] == 15, "all others are in the batch, at once"
    assert sizes[found[-1] - 1] == 1, "it failed alone before it was told so"
    await full.until_idle()


async def test_rows_that_fail_only_together_are_all_served(text_harness: Any) -> None:
    """A kernel that cannot do so many at once, say, and does not say that it is a matter of memory."""
    shy = text_harness(slots=8)
    tasks = [shy.submit(seed=seed, max_tokens=40) for seed in range(12)]
    failing(shy, lambda: ValueError("too many") if len(shy.batch) > 5 else None)
    shy.start()

    assert await ends(tasks) == {None}
    assert shy.snapshot.usable_slots == 5
    await shy.until_idle()


async def test_those_that_wait_while_a_failure_is_looked_for_may_leave_and_may_be_late(text_harness: Any) -> None:
    shaky = text_harness(slots=4)
    tasks = [shaky.submit(seed=seed) for seed in range(4)]
    stays, tried, leaves, late = tasks
    for number, task in enumerate(tasks):
        task.accepted_at += number - 100
        task.work = 12
    stepped: list[int] = []

    def raising() -> Exception | None:
        stepped.append(len(shaky.batch))
        if len(stepped) == 3:
            return ValueError("a hiccup")
        if len(stepped) == 4:
            assert shaky.snapshot.displaced == 2
            leaves.generation.close()
            late.deadline = 0.0
        return None

    failing(shaky, raising)
    shaky.start()

    assert await end_of(late) is problems.TOO_LATE
    assert await ends([stays, tried]) == {None}
    await shaky.until_idle()
    assert 3 not in stepped[3:]
    assert not shaky.snapshot.displaced


async def test_when_those_that_are_tried_leave_the_others_are(text_harness: Any) -> None:
    shaky = text_harness(slots=4)
    tasks = [shaky.submit(seed=seed) for seed in range(4)]
    stepped: list[int] = []

    def raising() -> Exception | None:
        stepped.append(len(shaky.batch))
        if len(stepped) == 3:
            for row in list(shaky.batch.running)[:2]:
                shaky.scheduler._running[row][0].generation.close()
            return ValueError("a hiccup")
        return None

    failing(shaky, raising)
    shaky.start()

    await eventually(lambda: len(stepped) > 3)
    kept = [task for task in tasks if not task.generation.closed]
    assert len(kept) == 2
    assert await ends(kept) == {None}
    await shaky.until_idle()


async def test_after_a_failure_that_does_not_come_again_all_sixteen_are_together_within_a_few_steps(
    text_harness: Any,
) -> None:
    full = text_harness(slots=16)
    tasks = [full.submit(seed=seed, max_tokens=100) for seed in range(16)]
    sizes: list[int] = []

    def raising() -> Exception | None:
        sizes.append(len(full.batch))
        return ValueError("a hiccup") if len(sizes) == 5 else None

    failing(full, raising)
    full.start()

    assert await ends(tasks) == {None}
    together = sizes.index(16, 5)
    assert together - 5 <= 10, "five halves, each a step of prompts and one of tokens"
    assert sizes[5:together] == sorted(sizes[5:together]), "those that have passed stay"
    assert full.snapshot.usable_slots == 16
    await full.until_idle()
