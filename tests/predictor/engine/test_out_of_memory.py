"""Running out of memory is a state: the batch shrinks, the youngest come again, and the texts are the same."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import predictor.engine.memory.memory_pressure
from contract import problems
from contract.problems import ProblemError
from predictor.engine.memory.memory_pressure import MOST_PATIENCE, RECOVERY_STEPS, MemoryPressure
from predictor.engine.scheduled_task import ScheduledTask
from predictor.text.output.text_output import TextOutput
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

PROMPTS = ["moon", "hello world", "su", "床前"]

ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: not enough memory"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    lambda: MemoryError(),
]


@pytest.fixture(autouse=True)
def little_garbage() -> Iterator[None]:
    """Collecting it takes long with all that is imported, and is done whenever memory runs out."""
    gc.freeze()
    yield
    gc.unfreeze()


async def texts(tasks: list[ScheduledTask]) -> list[str]:
    async with asyncio.timeout(60):
        return [(await task.generation.complete()).text for task in tasks]


async def problem_of(task: ScheduledTask) -> ProblemError:
    with pytest.raises(ProblemError) as problem:
        await asyncio.wait_for(task.generation.complete(), 60)
    return problem.value


def submit_all(harness: Any, prompts: list[str] = PROMPTS, **sampling: Any) -> list[ScheduledTask]:
    return [harness.submit(prompt, seed=seed, **sampling) for seed, prompt in enumerate(prompts)]


def before_each_step(harness: Any, do: Callable[[], None]) -> None:
    step = harness.batch.step

    def stepping() -> Any:
        do()
        return step()

    harness.batch.step = stepping


@pytest.fixture
def never_strained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor.engine.memory.memory_pressure, "STRAIN_EVENTS", 1_000_000)


async def undisturbed(harness: Any, **sampling: Any) -> tuple[list[str], int]:
    """The texts of an undisturbed run, and its steps."""
    steps: list[None] = []
    before_each_step(harness, lambda: steps.append(None))
    tasks = submit_all(harness, **sampling)
    harness.start()
    return await texts(tasks), len(steps)


async def test_at_any_step_of_a_run_the_texts_are_the_same(text_harness: Any) -> None:
    expected, steps = await undisturbed(text_harness())
    assert steps == 12
    for failing in range(steps):
        tried: list[int] = []
        disturbed = text_harness()

        def fail(tried: list[int] = tried, failing: int = failing) -> None:
            tried.append(len(tried))
            if tried[-1] == failing:
                raise ERRORS[failing % len(ERRORS)]()

        before_each_step(disturbed, fail)
        tasks = submit_all(disturbed)
        disturbed.start()

        assert await texts(tasks) == expected, f"after running out of memory in step {failing}"
        await disturbed.until_idle()
        assert disturbed.snapshot.usable_slots < disturbed.snapshot.slots
        assert not disturbed.scheduler.strained


@pytest.mark.parametrize("holds", [1, 2, 3, 5])
async def test_a_device_that_holds_fewer_writes_the_same_texts(text_harness: Any, holds: int) -> None:
    prompts = [f"moon {number}" for number in range(9)]
    plain = text_harness(slots=9)
    tasks = submit_all(plain, prompts)
    plain.start()
    expected = await texts(tasks)  # before the other begins: one thread at a time computes with a model
    small = text_harness(slots=9)

    def fail() -> None:
        if len(small.batch) > holds:
            raise torch.OutOfMemoryError("no memory")

    before_each_step(small, fail)
    tasks = submit_all(small, prompts)
    small.start()

    assert await texts(tasks) == expected
    await small.until_idle()
    assert small.snapshot.usable_slots == small.snapshot.slots == small.admission.slots == holds
    assert small.scheduler.strained
    assert small.scheduler.alive


@pytest.mark.usefixtures("never_strained")
async def test_a_device_that_runs_out_now_and_then_writes_the_same_texts(
    text_harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor.engine.memory.memory_pressure, "RECOVERY_STEPS", 2)
    expected, _ = await undisturbed(text_harness(), max_tokens=25)
    moody = text_harness()
    tries: list[None] = []

    def fail() -> None:
        tries.append(None)
        if len(moody.batch) > 1 and len(tries) % 3 == 0:
            raise torch.OutOfMemoryError("no memory")

    before_each_step(moody, fail)
    tasks = submit_all(moody, max_tokens=25)
    moody.start()

    assert await texts(tasks) == expected


@pytest.mark.parametrize("place", [0, 2, 4])
async def test_one_that_does_not_fit_even_alone_is_told_so_and_the_others_go_on(text_harness: Any, place: int) -> None:
    expected, _ = await undisturbed(text_harness(slots=5))
    crowded = text_harness(slots=5)

    def fail() -> None:
        if any(len(row.tokens) >= 100 for row in [*crowded.batch.running, *crowded.batch.joining]):
            raise torch.OutOfMemoryError("no memory")

    before_each_step(crowded, fail)
    tasks = [crowded.submit(prompt, seed=seed) for seed, prompt in list(enumerate(PROMPTS))[:place]]
    big = crowded.submit("x" * 100, max_tokens=5)
    tasks += [crowded.submit(prompt, seed=seed) for seed, prompt in list(enumerate(PROMPTS))[place:]]
    # Served in the order of their places, and not the shortest first:
    for number, task in enumerate([*tasks[:place], big, *tasks[place:]]):
        task.work, task.accepted_at = 12, task.accepted_at - 1_000 + number
    crowded.start()

    problem = await problem_of(big)
    assert problem.kind is problems.OUT_OF_MEMORY
    assert problem.document["status"] == 413
    assert "100 tokens so far" in problem.problem.detail
    assert "100 tokens" in str(problem)
    assert await texts(tasks) == expected
    await crowded.until_idle()
    snapshot = crowded.snapshot
    assert snapshot.slots == snapshot.usable_slots == crowded.admission.slots == 5, "it was not the batch's fault"


async def test_after_a_while_without_trouble_it_grows_again(text_harness: Any) -> None:
    recovering = text_harness(slots=2)
    failures = [torch.OutOfMemoryError("no memory")]

    def fail() -> None:
        if failures and len(recovering.batch) == 2:
            raise failures.pop()

    sizes: list[int] = []
    before_each_step(recovering, lambda: sizes.append(len(recovering.batch)))
    before_each_step(recovering, fail)
    tasks = submit_all(recovering, ["moon", "sun"], max_tokens=100)
    recovering.start()

    await texts(tasks)
    assert sizes[: RECOVERY_STEPS + 1] == [1] * RECOVERY_STEPS + [2]
    assert recovering.snapshot.usable_slots == 2
    await recovering.until_idle()


async def test_those_that_wait_for_one_without_memory_of_its_own_lose_no_text(
    text_harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the text of a token is written a step later."""
    expected, _ = await undisturbed(text_harness())
    disturbed = text_harness()
    disturbed.batch.defers_texts = True
    tasks = submit_all(disturbed)
    put, puts = TextOutput.put, []

    def put_without_memory(output: TextOutput, token: int) -> bool:
        if output.generation is tasks[0].generation:
            puts.append(token)
            if len(puts) == 5:
                raise MemoryError
        return put(output, token)

    monkeypatch.setattr(TextOutput, "put", put_without_memory)
    disturbed.start()

    assert (await texts(tasks))[1:] == expected[1:]
    assert len(puts) > 5
    await disturbed.until_idle()


async def test_the_memory_of_the_failed_step_is_free_before_the_next(text_harness: Any) -> None:
    messy = text_harness()
    held: list[Any] = []
    alive_after: list[bool] = []

    def fail() -> None:
        if held:
            alive_after.append(any(ref() is not None for ref in held))
            return
        tensor = torch.zeros(1000)
        held.append(weakref.ref(tensor))
        try:
            inner = torch.zeros(1000)
            held.append(weakref.ref(inner))
            raise torch.OutOfMemoryError("no memory")
        except torch.OutOfMemoryError as error:
            raise RuntimeError("CUDA error: out of memory") from error

    before_each_step(messy, fail)
    tasks = submit_all(messy)
    gc.disable()
    try:
        messy.start()
        await texts(tasks)
    finally:
        gc.enable()

    assert alive_after
    assert not any(alive_after)


async def test_a_displaced_one_may_leave_and_may_be_late(text_harness: Any) -> None:
    shrunk = text_harness(slots=3)

    def fail() -> None:
        if len(shrunk.batch) > 1:
            raise torch.OutOfMemoryError("no memory")

    before_each_step(shrunk, fail)
    stays, leaves, late = tasks = submit_all(shrunk, PROMPTS[:3], max_tokens=200)
    for number, task in enumerate(tasks):
        task.accepted_at += number - 100
    shrunk.start()
    await eventually(lambda: shrunk.snapshot.displaced == 2)

    leaves.generation.close()
    late.deadline = 0.0

    assert (await problem_of(late)).kind is problems.TOO_LATE
    await eventually(lambda: not shrunk.snapshot.displaced)
    await texts([stays])
    await shrunk.until_idle()


async def test_what_is_said_of_memory_in_another_sense_is_a_mistake_of_the_model(text_harness: Any) -> None:
    odd = text_harness(slots=1)

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    before_each_step(odd, fail)
    [task] = submit_all(odd, ["moon"])
    odd.start()

    assert (await problem_of(task)).kind is problems.INTERNAL


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is for MemoryPressure."""
    now = [1_000.0]
    monkeypatch.setattr(predictor.engine.memory.memory_pressure, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_a_capacity_that_was_lowered_comes_back_with_good_steps(
    text_harness: Any, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setattr(predictor.engine.memory.memory_pressure, "RECOVERY_STEPS", 4)
    recovering = text_harness(slots=4)
    lowered: list[int] = []
    strained: list[bool] = []

    def fail() -> None:
        if len(lowered) < 3:
            lowered.append(len(recovering.batch))
            raise torch.OutOfMemoryError("no memory")
        strained.append(recovering.scheduler.strained)

    before_each_step(recovering, fail)
    tasks = submit_all(recovering, max_tokens=60)
    recovering.start()

    await texts(tasks)
    assert lowered == [4, 3, 2]
    assert strained[0], "the server asked for no more requests"
    clock[0] += predictor.engine.memory.memory_pressure.STRAIN_SECONDS
    assert not recovering.scheduler.strained
    snapshot = recovering.snapshot
    assert snapshot.slots == snapshot.usable_slots == recovering.admission.slots == 4
    await recovering.until_idle()


def test_a_device_that_holds_fewer_is_not_tried_again_and_again(clock: list[float]) -> None:
    memory = MemoryPressure(5)
    failed: list[int] = []
    for step in range(20_000):
        clock[0] += 0.01
        if memory.usable_slots > 2:
            failed.append(step)
            memory.note_out_of_memory(memory.usable_slots)
            assert memory.strained == (len(failed) == 3), "a try that fails does not make the server unready"
        else:
            memory.note_good_step()
        clock[0] += 10 * (len(failed) == 3)

    assert memory.slots == memory.usable_slots == 2
    assert len(failed) < 15
    assert failed[3] - failed[2] > RECOVERY_STEPS


def test_after_a_long_time_at_full_capacity_recovery_is_quick_again(clock: list[float]) -> None:
    memory = MemoryPressure(2)
    for _ in range(5):
        memory.note_out_of_memory(2)
        while memory.usable_slots < 2:
            memory.note_good_step()
    for _ in range(MOST_PATIENCE * RECOVERY_STEPS):
        memory.note_good_step()
    memory.note_out_of_memory(2)

    for _ in range(RECOVERY_STEPS):
        memory.note_good_step()

    assert memory.usable_slots == memory.slots == 2
