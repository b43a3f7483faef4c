"""What predictors and brokers send back about jobs, written to their journal."""

from __future__ import annotations

import base64
import binascii
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from contract import (
    PictureResult,
    Problem,
    ProblemError,
    ProgressEvent,
    ReasoningEvent,
    StatusEvent,
    TextResult,
    TokenEvent,
    ToolCallEvent,
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
from contract.fields import StrictModel
from contract.problems import invalid_fields, raised
from contract.result import result_of_any_version
from contract.stored import request_of
from contract.texts.tools import ToolCall
from web.jobs.picture_memory import PictureMemory, result_bytes
from web.jobs.results import PICTURES_BYTES
from web.metrics import DEAD_LETTERS
from wire.cloudevents import is_json

if TYPE_CHECKING:  # only few deployments need it
    from collections.abc import Mapping

    from web.jobs.journal import JobJournal
    from web.jobs.record import JobRecord
    from web.readiness.model_readiness import Readiness
    from wire.artifacts import Artifacts

log = logging.getLogger(__name__)

Data = TypeVar("Data", bound=StrictModel)


class ReplyReceiver:
    """Without `artifacts`, a reply that refers to its result (`dataref`) ends its job as failed."""

    def __init__(
        self, artifacts: Artifacts | None, readiness: Mapping[str, Readiness], memory: PictureMemory | None = None
    ) -> None:
        self._artifacts = artifacts
        self._memory = memory or PictureMemory(PICTURES_BYTES)
        self._readiness = readiness

    async def receive(self, event: CloudEvent, journal: JobJournal) -> None:
        """Write what the event says of a job that is known here and has not ended; other events are ignored.

        Raises a ProblemError: what is wrong with the event, or a transient one when it should be delivered again.
        """
        if event.type == PROGRESS and event.subject is None and event.data:
            self._note_loading(_data(event, GenerationProgress))
            return
        job = event.subject if event.type != REQUESTED else event.id
        record = None if job is None else await journal.find(job)
        if record is None or record.ended is not None:
            # The broker also carries answers to other producers, and may deliver every event more than once.
            log.debug("%s of %r is nothing new", event.type, job)
        elif event.type in (COMPLETED, FAILED):
            # A result inside the event is no larger than a body may be.
            async with self._memory.held(_most_bytes(record) if DATAREF in event.extensions else 0):
                await self._end(event, record, journal)
            self._note_answer(record)
        elif event.type == CANCELLED:
            await journal.end(
                record.id, ProblemError(problems.CANCELLED, "The generation was cancelled before its end.")
            )
        elif event.type in (ACCEPTED, PROGRESS):
            self._note_answer(record)
            await _write_progress(event, record, journal)
        elif ERROR_CODE in event.extensions or ERROR_DESTINATION in event.extensions:
            DEAD_LETTERS.inc(await journal.end(record.id, _undelivered(event)))
        # Any other request is one of ours on its way to the predictor: a Trigger without a filter delivers it, too.

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
            case phase if readiness.state != "ready":  # or it comes late, or from one more pod
                readiness.wakes(time.monotonic(), phase, progress.seconds)

    async def _end(self, event: CloudEvent, record: JobRecord, journal: JobJournal) -> None:
        try:
            if event.type == FAILED:
                await journal.end(record.id, _failure(event))
                return
            result = await self._result(event, record)
        except ProblemError as error:
            # The artifacts or the store may be back, or have room, by the next delivery.
            if error.kind in (problems.UNAVAILABLE, problems.OVERLOADED):
                raise
            # No other reply will come, and the client is not to blame for this one.
            await journal.end(record.id, ProblemError(problems.BAD_UPSTREAM, str(error)))
            raise ProblemError(problems.MALFORMED_EVENT, str(error)) from None
        if isinstance(result, TextResult):  # whose last tokens no progress event may have brought, and no call
            await _append_text(result.reasoning_content or "", result.text, record, journal)
            await _append_calls(result, record, journal)
        artifact = event.extensions.get(DATAREF)
        await journal.end(record.id, result.model_copy(update={"id": record.id}), artifact=artifact)

    async def _result(self, event: CloudEvent, record: JobRecord) -> TextResult | PictureResult:
        if not is_json(event.datacontenttype):
            raise ProblemError(
                problems.BAD_UPSTREAM, f"The model server's answer is {event.datacontenttype}, not JSON."
            )
        data = await self._fetch_data(event, _most_bytes(record))
        try:
            result = result_of_any_version(data or b"")
        except ValidationError:
            raise ProblemError(problems.BAD_UPSTREAM, "The model server's answer is no result.") from None
        if result.kind != record.kind:
            raise ProblemError(problems.BAD_UPSTREAM, f"The model server's answer is of the kind {result.kind}.")
        if isinstance(result, PictureResult):
            _check_pictures(result, record)
        return result

    async def _fetch_data(self, event: CloudEvent, most_bytes: int) -> bytes | None:
        if DATAREF not in event.extensions:
            return event.data
        if self._artifacts is None:
            raise ProblemError(problems.BAD_UPSTREAM, "The result lies in artifacts that are not known here.")
        return await self._artifacts.get(event.extensions[DATAREF], most_bytes)


def check_type(event: CloudEvent, where: str = "") -> None:
    """Raise MALFORMED_EVENT if the type is not one of ours. `where` goes before the attribute's name."""
    known = [row.name for row in EVENT_TYPES]
    if event.type not in known:
        detail = f"{where}type: must be one of {', '.join(known)}, not {event.type!r}"
        raise ProblemError(problems.MALFORMED_EVENT, detail)


def _most_bytes(record: JobRecord) -> int:
    return result_bytes(request_of(record.request), record.kind)


def _check_pictures(result: PictureResult, record: JobRecord) -> None:
    """Raise BAD_UPSTREAM unless these are the pictures that were requested. Clients get them as files, and their media
    types in headers."""
    request = request_of(record.request)
    wanted = f"image/{request.format or 'png'}"
    if len(result.images) != (request.n or 1) or any(picture.media_type != wanted for picture in result.images):
        detail = f"The model server's answer is not what was asked for: {request.n or 1} of {wanted}."
        raise ProblemError(problems.BAD_UPSTREAM, detail)
    try:
        if not all(base64.b64decode(picture.data, validate=True) for picture in result.images):
            raise ValueError("an empty file")
    except ValueError:
        raise ProblemError(problems.BAD_UPSTREAM, "The model server's answer holds no pictures in base64.") from None


async def _write_progress(event: CloudEvent, record: JobRecord, journal: JobJournal) -> None:
    """Events may come late, twice and out of order; the journal's progress only goes forward."""
    if record.started is None and await journal.start(record.id):
        await journal.append(record.id, [StatusEvent(state="running")])
    if event.type == ACCEPTED:
        return
    progress = _data(event, GenerationProgress)
    if progress.step is not None and progress.of is not None:
        step = ProgressEvent(step=progress.step, of=progress.of)
        await journal.append_progress(record.id, progress.step, lambda _before: step)
    elif progress.text is not None:
        await _append_text(progress.reasoning_content or "", progress.text, record, journal)


async def _append_text(reasoning: str, text: str, record: JobRecord, journal: JobJournal) -> None:
    """Append what goes beyond the reasoning and the text so far; both are all of it from the beginning. All of the
    reasoning comes before the text, so the progress counts the characters of both."""
    thought = len(reasoning)
    await journal.append_progress(record.id, thought, lambda before: ReasoningEvent(text=reasoning[before:]))
    await journal.append_progress(
        record.id, thought + len(text), lambda before: TokenEvent(text=text[before - thought :])
    )


async def _append_calls(result: TextResult, record: JobRecord, journal: JobJournal) -> None:
    """Append the calls after the text. The progress counts each of them as one more character."""
    before = len(result.reasoning_content or "") + len(result.text)
    for index, call in enumerate(result.tool_calls or ()):
        await journal.append_progress(record.id, before + index + 1, partial(_whole_call, index, call))


def _whole_call(index: int, call: ToolCall, _before: int) -> ToolCallEvent:
    return ToolCallEvent(index=index, id=call.id, name=call.function.name, arguments=call.function.arguments)


def _failure(event: CloudEvent) -> ProblemError:
    problem = _data(event, Problem)
    if not 400 <= problem.status <= 599 or (problem.retry_after or 1) < 1:
        raise ProblemError(problems.MALFORMED_EVENT, f"status {problem.status} or retry_after is no failure's")
    return raised(problem)


def _data(event: CloudEvent, shape: type[Data]) -> Data:
    if not is_json(event.datacontenttype):
        raise ProblemError(problems.MALFORMED_EVENT, f"datacontenttype: must be JSON, not {event.datacontenttype!r}")
    try:
        return shape.of_any_version(event.data or b"")
    except ValidationError as error:
        raise invalid_fields(error, shape) from None


def _undelivered(event: CloudEvent) -> ProblemError:
    """Why the broker gave up on the request, by the extensions of its dead letter."""
    status = event.extensions.get(ERROR_CODE, "none")
    try:
        answer = base64.b64decode(event.extensions.get(ERROR_DATA, ""), validate=True)
        reason = Problem.of_any_version(answer).detail
    except (binascii.Error, ValidationError, ValueError):
        reason = "it does not say why"
    log.warning("%s gave up on %s: status %s", event.extensions.get(ERROR_DESTINATION), event.id, status)
    detail = f"The broker gave up after the model server's last status, {status}: {reason}"
    return ProblemError(problems.UNDELIVERED, detail)
