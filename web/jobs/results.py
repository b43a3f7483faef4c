"""Results of jobs: small ones are kept in the store of the jobs, large ones in the artifacts, where there are any.

Of a large one the store has the artifact's address alone. So it does not fill up with pictures, and every replica, and
a client that comes later, gets them from the same file. Old artifacts are removed by what holds them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from contract import ENDS, PictureResult, ProblemError, TextResult, problems
from contract.cloudevents import EVENT_BYTES
from contract.problems import raised
from contract.result import result_of_any_version
from contract.stored import request_of
from web.jobs.picture_memory import PictureMemory, result_bytes

if TYPE_CHECKING:  # only few deployments need it
    from web.jobs.record import JobRecord
    from wire.artifacts import Artifacts

log = logging.getLogger(__name__)

Read = TypeVar("Read")

PICTURES_BYTES = 134_217_728
"""Most bytes of pictures that are read at a time, where nothing else is set."""


class Results:
    """Without `artifacts` everything is kept in the store."""

    def __init__(self, artifacts: Artifacts | None, memory: PictureMemory | None = None) -> None:
        self._artifacts = artifacts
        self._memory = memory or PictureMemory(PICTURES_BYTES)
        self._fetches: dict[str, asyncio.Task[bytes]] = {}

    async def put(self, job: str, document: str) -> str | None:
        """Write a result that is large; the address of its artifact. UNAVAILABLE when that fails."""
        if self._artifacts is None or len(document) <= EVENT_BYTES:
            return None
        return await self._artifacts.put(f"{job}-{secrets.token_hex(8)}.json", document.encode())

    @asynccontextmanager
    async def held(self, record: JobRecord) -> AsyncGenerator[None]:
        """Around reading and sending pictures that a job has ended with. OVERLOADED where there is no room for them,
        and what `document` raises of artifacts."""
        size = 0
        if record.kind == "image" and record.artifact is not None:
            size = await self._read(self._known.size(record.artifact))
        elif record.kind == "image" and record.state == "completed":
            size = len(record.outcome or "")
        async with self._memory.held(size):
            yield

    async def document(self, record: JobRecord) -> str:
        """The JSON of what an ended job has ended with: its result, or its problem.

        UNAVAILABLE when the artifact cannot be read at the moment, NOT_FOUND when it is gone.
        """
        if record.artifact is None:
            assert record.outcome is not None
            return record.outcome
        # Its id is the job's, whatever a predictor has written.
        return (await self.result(record)).model_dump_json()

    async def result(self, record: JobRecord) -> TextResult | PictureResult:
        """The result of an ended job. Raises the problem that it has ended with; and as `document` does."""
        assert record.state in ENDS
        if (problem := record.problem) is not None:
            raise raised(problem)
        document = record.outcome or "" if record.artifact is None else await self._fetch(record, record.artifact)
        result = result_of_any_version(document)
        return result if result.id == record.id else result.model_copy(update={"id": record.id})

    async def delete(self, artifact: str | None) -> None:
        """Remove it, if that can be done."""
        if artifact is not None and self._artifacts is not None:
            with suppress(ProblemError):
                await self._artifacts.delete(artifact)

    async def _fetch(self, record: JobRecord, artifact: str) -> bytes:
        """All who want it at the same time get what one of them reads."""
        fetch = self._fetches.get(artifact)
        if fetch is None:
            limit = result_bytes(request_of(record.request), record.kind)
            fetch = self._fetches[artifact] = asyncio.create_task(self._known.get(artifact, limit))
            fetch.add_done_callback(partial(self._fetched, artifact))
        return await self._read(asyncio.shield(fetch))

    def _fetched(self, artifact: str, fetch: asyncio.Task[bytes]) -> None:
        self._fetches.pop(artifact, None)
        if not fetch.cancelled():
            fetch.exception()  # has been looked at, even if nobody waits any more

    @property
    def _known(self) -> Artifacts:
        if self._artifacts is None:
            detail = "The result lies in artifacts that are not known here."
            raise ProblemError(problems.UNAVAILABLE, detail, retry_after=30)
        return self._artifacts

    async def _read(self, reading: Awaitable[Read]) -> Read:
        try:
            return await reading
        except ProblemError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ProblemError(problems.NOT_FOUND, "The result of this generation is gone.") from None
            log.warning("a result cannot be read: %s", error)
            raise


def for_older_replicas() -> ProblemError:
    """What a job whose result is an artifact has ended with in the eyes of replicas that know no artifacts of jobs."""
    detail = "The result lies where this replica cannot read it. Ask again when all are of the newer version."
    return ProblemError(problems.UNAVAILABLE, detail, retry_after=30)
