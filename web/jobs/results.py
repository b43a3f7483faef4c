"""Results of jobs: small ones are kept in the store of the jobs, large ones in the artifacts, where there are any.

Of a large one the store has the artifact's address alone. So it does not fill up with pictures, and every replica, and
a client that comes later, gets them from the same file. Old artifacts are removed by what holds them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from contract import ENDS, PictureResult, ProblemError, TextResult, problems
from contract.cloudevents import EVENT_BYTES
from contract.problems import raised
from contract.result import result_of_any_version

if TYPE_CHECKING:  # only few deployments need it
    from web.jobs.record import JobRecord
    from wire.artifacts import Artifacts

log = logging.getLogger(__name__)

RESULT_BYTES = 268_435_456
"""Largest result that is fetched: eight pictures of 2048 x 2048 pixels, in base64, fit."""


class Results:
    """Without `artifacts` everything is kept in the store."""

    def __init__(self, artifacts: Artifacts | None) -> None:
        self._artifacts = artifacts
        self._fetches: dict[str, asyncio.Task[bytes]] = {}

    async def put(self, job: str, document: str) -> str | None:
        """Write a result that is large; the address of its artifact. UNAVAILABLE when that fails."""
        if self._artifacts is None or len(document) <= EVENT_BYTES:
            return None
        return await self._artifacts.put(f"{job}-{secrets.token_hex(8)}.json", document.encode())

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
        document = record.outcome or "" if record.artifact is None else await self._fetch(record.artifact)
        result = result_of_any_version(document)
        return result if result.id == record.id else result.model_copy(update={"id": record.id})

    async def delete(self, artifact: str | None) -> None:
        """Remove it, if that can be done."""
        if artifact is not None and self._artifacts is not None:
            with suppress(ProblemError):
                await self._artifacts.delete(artifact)

    async def _fetch(self, artifact: str) -> bytes:
        """All who want it at the same time get what one of them reads."""
        if self._artifacts is None:
            raise ProblemError(
                problems.UNAVAILABLE, "The result lies in artifacts that are not known here.", retry_after=30
            )
        fetch = self._fetches.get(artifact)
        if fetch is None:
            fetch = self._fetches[artifact] = asyncio.create_task(self._artifacts.get(artifact, RESULT_BYTES))
            fetch.add_done_callback(lambda _: self._fetches.pop(artifact, None))
        try:
            return await asyncio.shield(fetch)
        except ProblemError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ProblemError(problems.NOT_FOUND, "The result of this generation is gone.") from None
            log.warning("a result cannot be read: %s", error)
            raise


def for_older_replicas() -> ProblemError:
    """What a job whose result is an artifact has ended with in the eyes of replicas that know no artifacts of jobs."""
    detail = "The result lies where this replica cannot read it. Ask again when all are of the newer version."
    return ProblemError(problems.UNAVAILABLE, detail, retry_after=30)
