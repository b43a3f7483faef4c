"""From an event of the type REQUESTED to its reply: read it, generate, build the reply."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError

from contract import problems
from contract.callers import EVENTS_CALLER
from contract.cloudevents import CALLER, EXPIRY, CloudEvent
from contract.problems import ProblemError, invalid_field, invalid_fields
from contract.request import GenerationRequest, check_fits
from contract.result import PictureResult, TextResult
from predictor.engine.generation import Generation
from predictor.events.progress import ProgressPublisher
from predictor.events.reply_builder import ReplyBuilder, subject_of
from predictor.protocols.generation_model import GenerationModel
from wire.cloudevents import is_json
from wire.request_context import CALLER_HEADER

log = logging.getLogger(__name__)

RETRY_SECONDS = 1
"""The Retry-After of a transient problem that names none itself."""


class EventGeneration:
    """The generation that one event requests for a `caller`: a PendingReply. Progress is published when there is a
    `publisher`."""

    def __init__(
        self,
        event: CloudEvent,
        caller: str,
        model: GenerationModel,
        replies: ReplyBuilder,
        publisher: ProgressPublisher | None,
    ) -> None:
        # What names no caller is known as before there were callers: older replicas share the store.
        self.key: tuple[str, ...] = event.key if caller == EVENTS_CALLER else (*event.key, caller)
        self.caller = caller
        self.subject = subject_of(event)
        self._event = _named(event, caller)
        self._model = model
        self._replies = replies
        self._publisher = publisher
        self._begun = time.monotonic()
        self._generation: Generation | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Have `reply` return that the request was cancelled."""
        self._cancelled = True
        if self._generation is not None:
            self._generation.publish(_cancelled())
            self._generation.close()

    async def reply(self) -> CloudEvent:
        """The reply with the result, or with a permanent problem. Raises a ProblemError for a transient one, with a
        Retry-After."""
        try:
            return await self._replies.completed(self._event, await self._result())
        except ProblemError as error:
            if error.kind.transient:
                retry_after = error.problem.retry_after or RETRY_SECONDS
                error.problem = error.problem.model_copy(update={"retry_after": retry_after})
                raise
            return self._replies.failed(self._event, error.problem)
        except Exception:
            log.exception("the request %r from %r failed", self._event.id, self._event.source)
            raise problems.internal(retry_after=RETRY_SECONDS) from None

    async def _result(self) -> TextResult | PictureResult:
        self._check_cancelled()
        request = _read_request(self._event)
        if request.model is not None:
            self._model.check_name(request.model)
        check_fits(request, self._model.name, self._model.kind)
        task = replace(self._model.task(request), seconds=_seconds_left(self._event))
        self._generation = generation = await self._model.submit(task, {CALLER_HEADER.lower(): self.caller})
        try:
            self._check_cancelled()
            listener = self._publisher.listener(self._event, request.n or 1) if self._publisher else None
            return await self._model.result(self.subject, request, generation, self._begun, listener)
        finally:
            generation.close()

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise _cancelled()


def _named(event: CloudEvent, caller: str) -> CloudEvent:
    """The event as that of its caller: what is said about it names no other."""
    extensions = {name: value for name, value in event.extensions.items() if name != CALLER}
    named = {} if caller == EVENTS_CALLER else {CALLER: caller}
    return event.model_copy(update={"extensions": extensions | named})


def _cancelled() -> ProblemError:
    return ProblemError(problems.CANCELLED, "The generation was cancelled before its end.")


def _read_request(event: CloudEvent) -> GenerationRequest:
    """The data of an event. Raises a ProblemError that names what is wrong with them."""
    if not is_json(event.datacontenttype):
        raise ProblemError(
            problems.UNSUPPORTED_MEDIA_TYPE,
            f"The event's data are of the type {event.datacontenttype}; send JSON, as the body of POST /generate.",
        )
    if event.data is None:
        raise invalid_field("data", "is required: what the body of POST /generate is")
    try:
        request = GenerationRequest.of_any_version(event.data)
    except ValidationError as error:
        raise invalid_fields(error, GenerationRequest) from None
    if request.webhook is not None:
        raise invalid_field("webhook", "is for POST /generate alone: what comes of an event is its reply")
    return request


def _seconds_left(event: CloudEvent) -> float | None:
    """Seconds until the event expires; None when it does not. Raises a ProblemError when it has expired."""
    text = event.extensions.get(EXPIRY)
    if text is None:
        return None
    try:
        left = (datetime.fromisoformat(text.upper()) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a time zone
        raise invalid_field(EXPIRY, "must be a time as RFC 3339 writes it, such as 2026-01-31T08:00:00Z") from None
    if left <= 0:
        raise ProblemError(problems.TOO_LATE, f"The request was wanted until {text}.")
    return left
