"""The line of accepted tasks: bounded, in order, and without those that left."""

from __future__ import annotations

import threading

from contract.request import Sampling
from predictor.engine import Generation
from predictor.jobs import Job, JobQueue


def job() -> Job:
    return Job(Generation(), [1], Sampling())


async def test_first_come_first_served() -> None:
    line = JobQueue(3)
    jobs = [job() for _ in range(3)]

    assert all(line.put(one) for one in jobs)

    assert [line.get() for _ in range(3)] == jobs


async def test_a_full_line_takes_no_more() -> None:
    line = JobQueue(2)

    assert [line.put(job()) for _ in range(3)] == [True, True, False]


async def test_a_job_that_nobody_waits_for_gives_up_its_place() -> None:
    line = JobQueue(2)
    left, stayed, came = job(), job(), job()
    line.put(left)
    line.put(stayed)

    left.generation.close()

    assert line.put(came)
    assert [line.get(), line.get()] == [stayed, came]


async def test_a_job_that_nobody_waits_for_is_not_served() -> None:
    line = JobQueue(2)
    left, stayed = job(), job()
    line.put(left)
    line.put(stayed)

    left.generation.close()

    assert line.get() is stayed


async def test_closing_ends_the_wait_and_tells_who_was_not_served() -> None:
    line = JobQueue(2)
    got: list[Job | None] = []
    waiter = threading.Thread(target=lambda: got.append(line.get()))
    waiter.start()
    assert line.close() == []
    waiter.join(60)
    assert got == [None]

    line = JobQueue(2)
    left, stayed = job(), job()
    line.put(left)
    line.put(stayed)
    left.generation.close()
    assert line.close() == [stayed]
    assert line.get() is None
