"""The wait in front of the slots: who gets in, who is next, and what the others are told."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from contract import problems
from contract.problems import ProblemError, ProblemType
from predictor.engine import admission_queue
from predictor.engine.admission_queue import Admission, ServiceTime
from predictor.engine.generation import Generation
from predictor.engine.scheduled_task import ScheduledTask


def task(most: int = 10, *, seconds: float | None = None, waited: float = 0.0) -> ScheduledTask:
    now = time.monotonic()
    deadline = None if seconds is None else now + seconds
    return ScheduledTask(Generation(), most, deadline, accepted_at=now - waited)


async def told(generation: Generation) -> ProblemType:
    with pytest.raises(ProblemError) as problem:
        await asyncio.wait_for(generation.complete(), 60)
    return problem.value.kind


def refusal(admission: Admission, refused: ScheduledTask) -> ProblemError:
    with pytest.raises(ProblemError) as problem:
        admission.admit(refused)
    return problem.value


async def test_as_many_are_let_in_as_slots_and_places_and_no_more() -> None:
    admission = Admission(slots=8, max_waiting=32)
    for _ in range(40):
        admission.admit(task())

    for _ in range(260):
        problem = refusal(admission, task())
        assert problem.kind is problems.OVERLOADED
        assert int(problem.headers["Retry-After"]) >= 1
    assert (admission.waiting, admission.running) == (40, 0)


async def test_the_bound_holds_whoever_runs_and_whoever_waits() -> None:
    admission = Admission(slots=2, max_waiting=1)
    for _ in range(3):
        admission.admit(task())
    taken = [admission.next_task(block=False) for _ in range(2)]

    assert refusal(admission, task()).kind is problems.OVERLOADED
    assert taken[0] is not None
    admission.release(taken[0], completed=True)
    admission.admit(task())
    assert (admission.waiting, admission.running) == (2, 1)


async def test_many_threads_cannot_get_more_in_together() -> None:
    admission = Admission(slots=3, max_waiting=4)
    tasks = [task() for _ in range(200)]
    refused: list[ScheduledTask] = []

    def admit(some: list[ScheduledTask]) -> None:
        for each in some:
            try:
                admission.admit(each)
            except ProblemError:
                refused.append(each)

    threads = [threading.Thread(target=admit, args=(tasks[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(refused) == 193
    assert admission.waiting == 7


async def test_the_time_to_come_back_grows_with_the_queue_and_with_what_a_generation_took() -> None:
    admission = Admission(slots=2, max_waiting=10)
    assert admission.retry_after == 0
    for _ in range(8):
        admission.admit(task())

    before = admission.retry_after
    first = admission.next_task(block=False)
    assert first is not None
    first.started_at = time.monotonic() - 6
    admission.release(first, completed=True)

    assert before == pytest.approx(3.5 * 1.0)
    assert admission.retry_after == pytest.approx(3 * 6.0, rel=0.1)


def test_the_service_time_is_learned_at_once_and_then_smoothed() -> None:
    service_time = ServiceTime()
    service_time.learn(10)
    assert service_time.generation_s == 10
    service_time.learn(20)
    assert service_time.generation_s == pytest.approx(12)


async def test_a_generation_that_was_cut_short_teaches_nothing() -> None:
    admission = Admission(slots=1, max_waiting=1)
    admission.admit(task())
    cut = admission.next_task(block=False)
    assert cut is not None
    cut.started_at = time.monotonic() - 100

    admission.release(cut, completed=False)

    assert admission.service_time.generation_s == 1.0


async def test_a_short_one_goes_before_long_ones() -> None:
    admission = Admission(slots=1, max_waiting=10)
    long, longer, short = task(1_000), task(2_000), task(5)
    for each in (longer, long, short):
        admission.admit(each)

    assert [admission.next_task(block=False) for _ in range(4)] == [short, longer, long, None]


async def test_among_equals_the_first_goes_first() -> None:
    admission = Admission(slots=1, max_waiting=10)
    tasks = [task(10, waited=9 - number) for number in range(5)]
    for each in tasks:
        admission.admit(each)

    assert [admission.next_task(block=False) for _ in range(5)] == tasks


async def test_a_free_slot_goes_to_the_shortest_the_longest_and_the_oldest_in_turn() -> None:
    admission = Admission(slots=1, max_waiting=10)
    for most, waited in ((50, 1), (60, 9), (5, 2), (900, 3), (6, 4), (800, 5)):
        admission.admit(task(most, waited=waited))

    taken = [admission.next_task(block=False) for _ in range(6)]

    assert [one.work for one in taken if one] == [5, 900, 60, 6, 800, 50]


async def test_nobody_is_passed_over_for_ever() -> None:
    admission = Admission(slots=1, max_waiting=10)
    middling = task(100, waited=1)
    admission.admit(middling)
    for _ in range(3):
        admission.admit(task(5))
        admission.admit(task(1_000))

    assert middling in [admission.next_task(block=False) for _ in range(3)]


async def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    admission = Admission(slots=1, max_waiting=10)
    admission.service_time.learn(10)
    admission.admit(task(seconds=1))  # it has a slot, and might be a short one
    admission.admit(task())

    problem = refusal(admission, task(seconds=25))
    assert problem.kind is problems.OVERLOADED
    assert "about 30.0 s" in str(problem)
    assert int(problem.headers["Retry-After"]) == 20
    admission.admit(task(seconds=35))


async def test_one_whose_time_passes_while_it_waits_is_told_and_gives_up_its_place() -> None:
    admission = Admission(slots=1, max_waiting=1)
    late = task(seconds=1_000)
    admission.admit(task())
    admission.admit(late)

    late.deadline = time.monotonic()
    admission.purge()

    assert await told(late.generation) is problems.TOO_LATE
    admission.admit(task())


async def test_a_closed_one_gives_up_its_place_and_is_never_taken() -> None:
    admission = Admission(slots=1, max_waiting=2)
    tasks = [task() for _ in range(3)]
    for each in tasks:
        admission.admit(each)

    tasks[0].generation.close()
    tasks[2].generation.close()
    another = task()
    admission.admit(another)

    assert [admission.next_task(block=False) for _ in range(3)] == [tasks[1], another, None]


async def test_closing_hands_back_what_waits_and_wakes_the_one_that_takes() -> None:
    admission = Admission(slots=1, max_waiting=2)
    taking: list[Any] = []
    taker = threading.Thread(target=lambda: taking.append(admission.next_task(block=True)))
    taker.start()
    problem = ProblemError(problems.UNAVAILABLE, "closed")
    admission.close(problem)
    taker.join(60)
    assert taking == [None]

    for _ in range(3):
        assert refusal(admission, task()) is problem


async def test_what_is_refused_after_closing_is_not_remembered() -> None:
    """One problem is raised to everyone; its traceback must not grow with each."""
    admission = Admission(slots=1, max_waiting=2)
    problem = ProblemError(problems.UNAVAILABLE, "closed")
    admission.close(problem)

    def frames() -> int:
        refusal(admission, task())
        count, at = 0, problem.__traceback__
        while at:
            count, at = count + 1, at.tb_next
        return count

    assert {frames() for _ in range(5)} == {frames()}


async def test_the_jobs_that_still_wait_are_handed_back() -> None:
    admission = Admission(slots=1, max_waiting=2)
    tasks = [task() for _ in range(3)]
    for each in tasks:
        admission.admit(each)
    taken = admission.next_task(block=False)

    left = admission.close(ProblemError(problems.UNAVAILABLE, "closed"))

    assert {*left, taken} == {*tasks}
    assert admission.waiting == 0


async def test_who_waits_for_those_on_their_way_waits_until_they_fill_the_slots_or_do_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission_queue, "ARRIVING_SECONDS", 60.0)
    admission = Admission(slots=2, max_waiting=8)
    admission.wait_for_arriving()  # nobody comes
    with pytest.raises(ValueError, match="too long"), admission.arriving():
        raise ValueError("too long")
    admission.wait_for_arriving()  # it does not come any more
    with admission.arriving():
        for _ in range(2):
            admission.admit(task())
        admission.wait_for_arriving()  # there is no place for it
    admission = Admission(slots=2, max_waiting=8)
    with admission.arriving():
        waiting = threading.Thread(target=admission.wait_for_arriving)
        waiting.start()
        assert waiting.is_alive()
        admission.close(ProblemError(problems.UNAVAILABLE, "closed"))
        waiting.join(60)
        assert not waiting.is_alive()
    monkeypatch.setattr(admission_queue, "ARRIVING_SECONDS", 0.001)
    admission = Admission(slots=2, max_waiting=8)
    with admission.arriving():
        admission.wait_for_arriving()  # not for long
