"""What predictors and brokers send back about jobs, taken into the jobs."""

from __future__ import annotations

import base64
import binascii
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from contract import (
    GenerationRequest,
    PictureResult,
    Problem,
    ProblemError,
    ProgressEvent,
    StatusEvent,
    TextResult,
    TokenEvent,
    problems,
)
from contract.cloudevents import (
    ACCEPTED,
    CANCELLED,
    COMPLETED,
    DATAREF,
    ERROR_CODE,
    ERROR_DATA,
    ERROR_DESTINATION,
    EVENT_TYPES,
    FAILED,
    PROGRESS,
    REQUESTED,
    CloudEvent,
    GenerationProgress,
)
from contract.problems import invalid_fields, raised
from contract.result import RESULT
from wire.cloudevents import is_json

if TYPE_CHECKING:  # only few deployments need it
    from collections.abc import Mapping

    from web.jobs.service import JobService
    from web.jobs.store import JobRecord
    from web.readiness.model_readiness import Readiness
    from wire.artifacts import Artifacts

log = logging.getLogger(__name__)

RESULT_BYTES = 268_435_456
"""Largest result that is fetched for an event: eight pictures of 2048 x 2048 pixels, in base64, fit."""

Data = TypeVar("Data", bound=BaseModel)


class ReplyReceiver:
    """Without `artifacts`, events that only refer to their data end their job as failed."""

    def __init__(self, artifacts: Artifacts | None, readiness: Mapping[str, Readiness]) -> None:
        self._artifacts = artifacts
        self._readiness = readiness

    async def take(self, event: CloudEvent, jobs: JobService) -> None:
        """Whatever it says of a job that is known here and open; of any other job it says nothing.

        Raises a ProblemError: what is wrong with the event, or transient where it should be delivered again.
        """
        if event.type == PROGRESS and event.subject is None and event.data:
            self._note_loading(_data(event, GenerationProgress))
            return
        job = event.subject if event.type != REQUESTED else event.id
        record = None if job is None else await jobs.known(job)
        if record is None or record.ended is not None:
            # Other producers' requests are answered on the same broker, and every answer may come more than once.
            log.debug("%s of %r is nothing new", event.type, job)
        elif event.type in (COMPLETED, FAILED):
            await self._end(event, record, jobs)
            self._note_answer(record)
        elif event.type == CANCELLED:
            await jobs.end(record.id, ProblemError(problems.CANCELLED, "The generation was cancelled before its end."))
        elif event.type in (ACCEPTED, PROGRESS):
            self._note_answer(record)
            await _come_on(event, record, jobs)
        elif ERROR_CODE in event.extensions or ERROR_DESTINATION in event.extensions:
            await jobs.end(record.id, _undelivered(event))
        # Any other request is one of ours on its way to the predictor, brought here by a Trigger without a filter.

    def _note_answer(self, record: JobRecord) -> None:
        if record.model in self._readiness:
            self._readiness[record.model].answered()

    def _note_loading(self, progress: GenerationProgress) -> None:
        readiness = self._readiness.get(progress.model)
        if readiness is None:
            return
        match progress.phase:
            case "ready":
                readiness.answered()
            case "failed":
                readiness.lost()
            case phase if readiness.state != "ready":  # else it comes late, or from one more replica
                readiness.wakes(time.monotonic(), phase, progress.seconds)

    async def _end(self, event: CloudEvent, record: JobRecord, jobs: JobService) -> None:
        try:
            if event.type == FAILED:
                await jobs.end(record.id, _failure(event))
                return
            result = await self._result(event, record)
        except ProblemError as error:
            if error.kind is problems.UNAVAILABLE:  # the artifacts, or the jobs, may be back by the next delivery
                raise
            # There will be no other end, and this one is not the fault of whoever waits for it.
            await jobs.end(record.id, ProblemError(problems.BAD_UPSTREAM, str(error)))
            raise ProblemError(problems.MALFORMED_EVENT, str(error)) from None
        if isinstance(result, TextResult):  # all of which is told, however much was told on the way
            await _tell_text(result.text, record, jobs)
        await jobs.end(record.id, result.model_copy(update={"id": record.id}))

    async def _result(self, event: CloudEvent, record: JobRecord) -> TextResult | PictureResult:
        if not is_json(event.datacontenttype):
            raise ProblemError(
                problems.BAD_UPSTREAM, f"The model server's answer is {event.datacontenttype}, not JSON."
            )
        data = await self._fetched(event)
        try:
            result = RESULT.validate_json(data or b"")
        except ValidationError:
            raise ProblemError(problems.BAD_UPSTREAM, "The model server's answer is no result.") from None
        if result.kind != record.kind:
            raise ProblemError(problems.BAD_UPSTREAM, f"The model server's answer is of the kind {result.kind}.")
        if isinstance(result, PictureResult):
            _check_pictures(result, record)
        return result

    async def _fetched(self, event: CloudEvent) -> bytes | None:
        if DATAREF not in event.extensions:
            return event.data
        if self._artifacts is None:
            raise ProblemError(problems.BAD_UPSTREAM, "The result lies in artifacts that are not known here.")
        return await self._artifacts.get(event.extensions[DATAREF], RESULT_BYTES)


def check_type(event: CloudEvent, where: str = "") -> None:
    """A MALFORMED_EVENT problem for a type that nothing is known about here; `where` stands before its name."""
    known = [row.name for row in EVENT_TYPES]
    if event.type not in known:
        detail = f"{where}type: must be one of {', '.join(known)}, not {event.type!r}"
        raise ProblemError(problems.MALFORMED_EVENT, detail)


def _check_pictures(result: PictureResult, record: JobRecord) -> None:
    """They are handed on as they are: as files, and in headers."""
    order = GenerationRequest.model_validate_json(record.order)
    wanted = f"image/{order.format or 'png'}"
    if len(result.images) != (order.n or 1) or any(picture.media_type != wanted for picture in result.images):
        detail = f"The model server's answer is not what was asked for: {order.n or 1} of {wanted}."
        raise ProblemError(problems.BAD_UPSTREAM, detail)
    try:
        if not all(base64.b64decode(picture.data, validate=True) for picture in result.images):
            raise ValueError("an empty file")
    except ValueError:
        raise ProblemError(problems.BAD_UPSTREAM, "The model server's answer holds no pictures in base64.") from None


async def _come_on(event: CloudEvent, record: JobRecord, jobs: JobService) -> None:
    """Progress may come late, twice and out of order: it only ever goes forward."""
    if record.started is None and await jobs.start(record.id):
        await jobs.tell(record.id, [StatusEvent(state="running")])
    if event.type == ACCEPTED:
        return
    progress = _data(event, GenerationProgress)
    if progress.step is not None and progress.of is not None:
        step = ProgressEvent(step=progress.step, of=progress.of)
        await jobs.advance(record.id, progress.step, lambda _before: step)
    elif progress.text is not None:
        await _tell_text(progress.text, record, jobs)


async def _tell_text(text: str, record: JobRecord, jobs: JobService) -> None:
    await jobs.advance(record.id, len(text), lambda before: TokenEvent(text=text[before:]))


def _failure(event: CloudEvent) -> ProblemError:
    problem = _data(event, Problem)
    if not 400 <= problem.status <= 599 or (problem.retry_after or 1) < 1:
        raise ProblemError(problems.MALFORMED_EVENT, f"status {problem.status} or retry_after is no failure's")
    return raised(problem)


def _data(event: CloudEvent, shape: type[Data]) -> Data:
    if not is_json(event.datacontenttype):
        raise ProblemError(problems.MALFORMED_EVENT, f"datacontenttype: must be JSON, not {event.datacontenttype!r}")
    try:
        return shape.model_validate_json(event.data or b"")
    except ValidationError as error:
        raise invalid_fields(error, shape) from None


def _undelivered(event: CloudEvent) -> ProblemError:
    """Why the broker gave the request up."""
    status = event.extensions.get(ERROR_CODE, "none")
    try:
        answer = base64.b64decode(event.extensions.get(ERROR_DATA, ""), validate=True)
        reason = Problem.model_validate_json(answer).detail
    except (binascii.Error, ValidationError, ValueError):
        reason = "it does not say why"
    log.warning("%s gave up on %s: status %s", event.extensions.get(ERROR_DESTINATION), event.id, status)
    detail = f"The broker gave up after the model server's last status, {status}: {reason}"
    return ProblemError(problems.UNDELIVERED, detail)
