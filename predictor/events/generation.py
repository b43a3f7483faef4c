"""One request that came as an event, on its way to its reply."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError

from contract import problems
from contract.cloudevents import EXPIRY, CloudEvent
from contract.problems import ProblemError, invalid_field, invalid_fields
from contract.request import GenerationRequest, check_fits
from contract.result import PictureResult, TextResult
from predictor.engine.generation import Generation
from predictor.events.progress import ProgressPublisher
from predictor.events.reply_builder import ReplyBuilder, subject_of
from predictor.protocols.model import GenerationModel
from wire.cloudevents import is_json

log = logging.getLogger(__name__)

RETRY_SECONDS = 1
"""What a broker is told to wait before it delivers again, where the problem itself does not say."""


class EventGeneration:
    """Has a model do what an event of the type REQUESTED asks for. Nobody needs to wait for it."""

    def __init__(
        self, request: CloudEvent, model: GenerationModel, replies: ReplyBuilder, announcer: ProgressPublisher | None
    ) -> None:
        self.key = request.key
        self.subject = subject_of(request)
        self._request = request
        self._model = model
        self._replies = replies
        self._announcer = announcer
        self._begun = time.monotonic()
        self._generation: Generation | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Nobody wants the result any more: it ends as failed."""
        self._cancelled = True
        if self._generation is not None:
            self._generation.publish(_cancelled())
            self._generation.close()

    async def reply(self) -> CloudEvent:
        """The result, or the problem that stands in its way for ever; a transient ProblemError is raised."""
        try:
            return await self._replies.completed(self._request, await self._result())
        except ProblemError as error:
            if error.kind.transient:
                retry_after = error.problem.retry_after or RETRY_SECONDS
                error.problem = error.problem.model_copy(update={"retry_after": retry_after})
                raise
            return self._replies.failed(self._request, error.problem)
        except Exception:
            log.exception("the request %r from %r failed", self._request.id, self._request.source)
            detail = "Something went wrong on the server; its log says what."
            raise ProblemError(problems.INTERNAL, detail, retry_after=RETRY_SECONDS) from None

    async def _result(self) -> TextResult | PictureResult:
        self._check_wanted()
        order = _order(self._request)
        if order.model is not None:
            self._model.check_name(order.model)
        check_fits(order, self._model.name, self._model.kind)
        task = replace(self._model.task(order), seconds=_seconds_left(self._request))
        self._generation = generation = await self._model.submit(task, {})
        try:
            self._check_wanted()
            watch = self._announcer.narrate(self._request, order.n or 1) if self._announcer else None
            return await self._model.result(self.subject, order, generation, self._begun, watch)
        finally:
            generation.close()

    def _check_wanted(self) -> None:
        if self._cancelled:
            raise _cancelled()


def _cancelled() -> ProblemError:
    return ProblemError(problems.CANCELLED, "The generation was cancelled before its end.")


def _order(request: CloudEvent) -> GenerationRequest:
    if not is_json(request.datacontenttype):
        raise ProblemError(
            problems.UNSUPPORTED_MEDIA_TYPE,
            f"The event's data are of the type {request.datacontenttype}; send JSON, as the body of POST /generate.",
        )
    if request.data is None:
        raise invalid_field("data", "is required: what the body of POST /generate is")
    try:
        return GenerationRequest.model_validate_json(request.data)
    except ValidationError as error:
        raise invalid_fields(error, GenerationRequest) from None


def _seconds_left(request: CloudEvent) -> float | None:
    """Until nobody waits any more; None where the request does not say."""
    text = request.extensions.get(EXPIRY)
    if text is None:
        return None
    try:
        left = (datetime.fromisoformat(text.upper()) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no time at all, or one of no time zone
        raise invalid_field(EXPIRY, "must be a time as RFC 3339 writes it, such as 2026-01-31T08:00:00Z") from None
    if left <= 0:
        raise ProblemError(problems.TOO_LATE, f"The request was wanted until {text}.")
    return left
