"""Jobs for tests: records, what a scripted backend does with them, and what is read of their logs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from contract import (
    GenerationRequest,
    ProblemError,
    ProblemType,
    StatusEvent,
    TextResult,
    Timing,
    TokenEvent,
    Usage,
    problems,
)
from tests.support.waiting import eventually
from web.jobs.journal import JobJournal
from web.jobs.record import BEGINNING, Claim, JobRecord, LogEntry
from web.jobs.service import JobService, NewJob
from web.jobs.store import JobStore
from web.jobs.stores.memory_store import MemoryStore
from web.jobs.stores.redis_store import RedisStore

LIMIT = 10.0
"""Seconds after which a test that waits has failed."""

KEEP_SECONDS = 60.0

REQUEST = GenerationRequest(prompt="春")

Step = Callable[[JobRecord, JobJournal], Awaitable[None]]
Replica = Callable[..., Awaitable[JobService]]
NewStore = Callable[[], JobStore]
MakeStore = Callable[..., Awaitable[JobStore]]
SharedStore = Callable[..., Awaitable[RedisStore]]


class ScriptedBackend:
    """Does one step for each attempt, whichever job it is for, and the last step for all later ones."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.runs: list[JobRecord] = []
        self.given_up: list[str] = []
        self.cancelled: list[str] = []

    async def run(self, record: JobRecord, journal: JobJournal) -> None:
        self.runs.append(record)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        try:
            await step(record, journal)
        except asyncio.CancelledError:
            self.given_up.append(record.id)
            raise

    async def cancel(self, record: JobRecord) -> None:
        self.cancelled.append(record.id)

    async def begun(self, runs: int) -> None:
        await eventually(lambda: len(self.runs) >= runs, f"{runs} runs")

    async def gives_up(self, record: JobRecord) -> None:
        await eventually(lambda: record.id in self.given_up, "the run was given up", seconds=LIMIT)


class FailingStore(MemoryStore):
    """So many calls of each method raise an error."""

    def __init__(self, error: Callable[[], BaseException], **left: int) -> None:
        super().__init__(KEEP_SECONDS, 1_000_000, 1_000)
        self.error = error
        self.left = left

    def _call(self, name: str) -> None:
        if self.left.get(name, 0) > 0:
            self.left[name] -= 1
            raise self.error()

    async def wait_for_end(self, job: str) -> None:
        self._call("wait_for_end")
        await super().wait_for_end(job)

    async def claim(self, model: str, but_not: Collection[str] = ()) -> Claim | None:
        self._call("claim")
        return await super().claim(model, but_not)

    async def overdue(self, now: float) -> list[str]:
        self._call("overdue")
        return await super().overdue(now)

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        self._call("renew")
        return await super().renew(claims)

    async def broadcast(self, message: str) -> None:
        self._call("broadcast")
        await super().broadcast(message)


def result(record: JobRecord) -> TextResult:
    return TextResult(
        id=record.id,
        model=record.model,
        text="春天",
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=2),
        timing=Timing(queue_s=None, first_token_s=0.1, total_s=0.2),
    )


# Steps


async def begin(record: JobRecord, journal: JobJournal) -> None:
    assert await journal.start(record.id)
    await journal.append(record.id, [StatusEvent(state="running"), TokenEvent(text="春")])


async def complete(record: JobRecord, journal: JobJournal) -> None:
    await begin(record, journal)
    await journal.end(record.id, result(record))


async def hang(record: JobRecord, journal: JobJournal) -> None:
    await begin(record, journal)
    await asyncio.Event().wait()


async def deliver(_record: JobRecord, _journal: JobJournal) -> None:
    """As the events backend does: the end comes later, by another way."""


def refuse(kind: ProblemType, retry_after: int | None = None) -> Step:
    async def step(_record: JobRecord, _journal: JobJournal) -> None:
        raise ProblemError(kind, "Because.", retry_after=retry_after)

    return step


def break_off(kind: ProblemType = problems.BAD_UPSTREAM) -> Step:
    async def step(record: JobRecord, journal: JobJournal) -> None:
        await begin(record, journal)
        raise ProblemError(kind, "It broke.")

    return step


# The service


async def submitted(
    jobs: JobService, request: GenerationRequest = REQUEST, *, seconds: float = 60, **options: Any
) -> JobRecord:
    options = {"model": "poet", **options}
    return await jobs.submit(NewJob(request, request, seconds=seconds, headers={"X-Request-Id": "r"}, **options))


async def ended(jobs: JobService, record: JobRecord) -> JobRecord:
    async with asyncio.timeout(LIMIT):
        return await jobs.wait(record.id, None)


async def log_of(jobs: JobService, record: JobRecord) -> list[str]:
    """Its events, as states and texts and the names of the last ones."""
    async with asyncio.timeout(LIMIT):
        entries = [entry async for entry in jobs.watch(record.id)]
    documents = [(entry.event, json.loads(entry.data)) for entry in entries]
    return [
        document.get("state") or (event if event in ("result", "error") else document["text"])
        for event, document in documents
    ]


async def problem_of(jobs: JobService, record: JobRecord) -> tuple[str, str]:
    """The slug and the detail."""
    error = (await jobs.document(record)).error
    assert error is not None
    return error.type.removeprefix("urn:shangcai:problem:"), error.detail


# The store


def new_record(job: str = "a", **changes: Any) -> JobRecord:
    now = time.time()
    record = JobRecord(
        id=job,
        model="poet",
        kind="text",
        request=REQUEST.model_dump_json(exclude_none=True),
        digest="d",
        created=now,
        deadline=now + 60,
        headers={"X-Request-Id": "r"},
    )
    return replace(record, **changes)


def request_of(characters: int, **fields: Any) -> str:
    return GenerationRequest(prompt="x" * characters, **fields).model_dump_json(exclude_none=True)


async def added(store: JobStore, *jobs: str) -> None:
    for job in jobs:
        await store.add(new_record(job))


async def entries_of(store: JobStore, job: str, after: str = BEGINNING) -> list[LogEntry]:
    """Everything up to the end."""
    async with asyncio.timeout(LIMIT):
        return [entry async for entry in store.watch(job, after)]


def pairs(entries: list[LogEntry]) -> list[tuple[str, str]]:
    return [(entry.event, entry.data) for entry in entries]


async def claimed(store: JobStore, model: str = "poet") -> Claim:
    async with asyncio.timeout(LIMIT):
        while (claim := await store.claim(model)) is None:
            pass
        return claim
