"""Running out of memory is a state: the batch shrinks, the youngest come again, and the texts are the same."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import predictor.engine.scheduler
from contract import problems
from contract.problems import ProblemError
from predictor.engine.admission import ScheduledTask
from predictor.engine.scheduler import RECOVERY_STEPS

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


async def texts(jobs: list[ScheduledTask]) -> list[str]:
    async with asyncio.timeout(60):
        return [(await job.generation.complete()).text for job in jobs]


async def problem_of(job: ScheduledTask) -> ProblemError:
    with pytest.raises(ProblemError) as problem:
        await asyncio.wait_for(job.generation.complete(), 60)
    return problem.value


def orders(kitchen: Any, prompts: list[str] = PROMPTS, **sampling: Any) -> list[ScheduledTask]:
    return [kitchen.order(prompt, seed=seed, **sampling) for seed, prompt in enumerate(prompts)]


def before_each_step(kitchen: Any, do: Callable[[], None]) -> None:
    step = kitchen.batch.step

    def stepping() -> Any:
        do()
        return step()

    kitchen.batch.step = stepping


@pytest.fixture
def never_strained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor.engine.scheduler, "STRAIN_EVENTS", 1_000_000)


async def cooked(kitchen: Any, **sampling: Any) -> tuple[list[str], int]:
    """The texts of an undisturbed run, and its steps."""
    steps: list[None] = []
    before_each_step(kitchen, lambda: steps.append(None))
    jobs = orders(kitchen, **sampling)
    kitchen.cook.start()
    return await texts(jobs), len(steps)


async def test_at_any_step_of_a_run_the_texts_are_the_same(kitchen: Any, eventually: Any) -> None:
    expected, steps = await cooked(kitchen())
    assert steps == 14
    for failing in range(steps):
        tried: list[int] = []
        disturbed = kitchen()

        def fail(tried: list[int] = tried, failing: int = failing) -> None:
            tried.append(len(tried))
            if tried[-1] == failing:
                raise ERRORS[failing % len(ERRORS)]()

        before_each_step(disturbed, fail)
        jobs = orders(disturbed)
        disturbed.cook.start()

        assert await texts(jobs) == expected, f"after running out of memory in step {failing}"
        await eventually(lambda disturbed=disturbed: disturbed.empty)
        assert disturbed.cook.allowed < disturbed.cook.capacity
        assert not disturbed.cook.strained


@pytest.mark.parametrize("holds", [1, 2, 3, 5])
async def test_a_device_that_holds_fewer_writes_the_same_texts(kitchen: Any, eventually: Any, holds: int) -> None:
    prompts = [f"moon {number}" for number in range(9)]
    plain = kitchen(slots=9)
    expected = orders(plain, prompts)
    plain.cook.start()
    small = kitchen(slots=9)

    def fail() -> None:
        if len(small.batch) > holds:
            raise torch.OutOfMemoryError("no memory")

    before_each_step(small, fail)
    jobs = orders(small, prompts)
    small.cook.start()

    assert await texts(jobs) == await texts(expected)
    await eventually(lambda: small.empty)
    assert small.cook.allowed == small.cook.capacity == small.admission.slots == holds
    assert small.cook.strained
    assert small.cook.alive


@pytest.mark.usefixtures("never_strained")
async def test_a_device_that_runs_out_now_and_then_writes_the_same_texts(
    kitchen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor.engine.scheduler, "RECOVERY_STEPS", 2)
    expected, _ = await cooked(kitchen(), max_tokens=25)
    moody = kitchen()
    tries: list[None] = []

    def fail() -> None:
        tries.append(None)
        if len(moody.batch) > 1 and len(tries) % 3 == 0:
            raise torch.OutOfMemoryError("no memory")

    before_each_step(moody, fail)
    jobs = orders(moody, max_tokens=25)
    moody.cook.start()

    assert await texts(jobs) == expected


@pytest.mark.parametrize("place", [0, 2, 4])
async def test_one_that_does_not_fit_even_alone_is_told_so_and_the_others_go_on(
    kitchen: Any, eventually: Any, place: int
) -> None:
    expected, _ = await cooked(kitchen(slots=5))
    crowded = kitchen(slots=5)

    def fail() -> None:
        if any(len(row.tokens) >= 100 for row in [*crowded.batch.running, *crowded.batch.joining]):
            raise torch.OutOfMemoryError("no memory")

    before_each_step(crowded, fail)
    jobs = [crowded.order(prompt, seed=seed) for seed, prompt in list(enumerate(PROMPTS))[:place]]
    big = crowded.order("x" * 100, max_tokens=5)
    jobs += [crowded.order(prompt, seed=seed) for seed, prompt in list(enumerate(PROMPTS))[place:]]
    # Served in the order of their places, and not the shortest first:
    for number, job in enumerate([*jobs[:place], big, *jobs[place:]]):
        job.work, job.accepted_at = 12, job.accepted_at - 1_000 + number
    crowded.cook.start()

    problem = await problem_of(big)
    assert problem.kind is problems.OUT_OF_MEMORY
    assert problem.document["status"] == 413
    assert "100 tokens so far" in problem.problem.detail
    assert "100 tokens" in str(problem)
    assert await texts(jobs) == expected
    await eventually(lambda: crowded.empty)
    assert crowded.cook.capacity == crowded.cook.allowed == crowded.admission.slots == 5, "it was not the batch's fault"


async def test_after_a_while_without_trouble_it_grows_again(kitchen: Any, eventually: Any) -> None:
    recovering = kitchen(slots=2)
    failures = [torch.OutOfMemoryError("no memory")]

    def fail() -> None:
        if failures and len(recovering.batch) == 2:
            raise failures.pop()

    sizes: list[int] = []
    before_each_step(recovering, lambda: sizes.append(len(recovering.batch)))
    before_each_step(recovering, fail)
    jobs = orders(recovering, ["moon", "sun"], max_tokens=100)
    recovering.cook.start()

    await texts(jobs)
    assert sizes[: RECOVERY_STEPS + 1] == [1] * RECOVERY_STEPS + [2]
    assert recovering.cook.allowed == 2
    await eventually(lambda: recovering.empty)


async def test_the_memory_of_the_failed_step_is_free_before_the_next(kitchen: Any) -> None:
    messy = kitchen()
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
    jobs = orders(messy)
    gc.disable()
    try:
        messy.cook.start()
        await texts(jobs)
    finally:
        gc.enable()

    assert alive_after
    assert not any(alive_after)


async def test_a_displaced_one_may_leave_and_may_be_late(kitchen: Any, eventually: Any) -> None:
    shrunk = kitchen(slots=3)

    def fail() -> None:
        if len(shrunk.batch) > 1:
            raise torch.OutOfMemoryError("no memory")

    before_each_step(shrunk, fail)
    stays, leaves, late = jobs = orders(shrunk, PROMPTS[:3], max_tokens=200)
    for number, job in enumerate(jobs):
        job.accepted_at += number - 100
    shrunk.cook.start()
    await eventually(lambda: len(shrunk.cook._displaced) == 2)

    leaves.generation.close()
    late.deadline = 0.0

    assert (await problem_of(late)).kind is problems.TOO_LATE
    await eventually(lambda: not shrunk.cook._displaced)
    await texts([stays])
    await eventually(lambda: shrunk.empty)


async def test_what_is_said_of_memory_in_another_sense_is_a_mistake_of_the_model(kitchen: Any) -> None:
    odd = kitchen(slots=1)

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    before_each_step(odd, fail)
    [job] = orders(odd, ["moon"])
    odd.cook.start()

    assert (await problem_of(job)).kind is problems.INTERNAL
