"""The events backend: CloudEvents to K_SINK, which is a Broker or the predictor itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2

from contract import ProblemError, problems
from contract.cloudevents import (
    CALLER,
    CANCELLED,
    EXPIRY,
    JSON,
    MODEL,
    REQUESTED,
    Cancellation,
    CloudEvent,
    now,
    written,
)
from contract.stored import event_data
from web.client.failures import RETRY_SECONDS, bad_answer, refusal, transport_failures
from web.client.scoped_task import ScopedTask
from web.events.counted_events import counted
from web.jobs.backend import sink_missing
from web.metrics import EVENTS, EVENTS_SENT
from wire.cloudevents import is_event, overrides, read_events, signed, write_event
from wire.telemetry.tracing import passed_on

if TYPE_CHECKING:
    from web.events.replies import ReplyReceiver
    from web.jobs.journal import JobJournal
    from web.jobs.record import JobRecord
    from web.settings import Settings

log = logging.getLogger(__name__)

REPLY_BYTES = 16_777_216
"""Longest answer of a sink that is read; of larger results it holds a reference."""

_RETRIED_REFUSALS = (HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT)
"""Beyond 429 and 5xx: what Knative itself sends again. A broker that is not there yet answers 404."""


class EventBackend:
    """Sends events to the sink of the settings, and takes the replies that come in its answers."""

    def __init__(self, client: httpx2.AsyncClient, settings: Settings, replies: ReplyReceiver) -> None:
        self._client = client
        self._sink = settings.k_sink or ""
        self._source = settings.event_source
        self._extensions = overrides(settings.k_ce_overrides)
        self._token = settings.k_token
        self._predictor_token = settings.predictor_token
        self._replies = replies

    async def run(self, record: JobRecord, journal: JobJournal) -> None:
        """Send the request. The reply is in the sink's answer, or comes later as an event of its own."""
        event = self._event(REQUESTED, record, {EXPIRY: written(record.deadline)}, record.id)
        event = event.model_copy(update={"datacontenttype": JSON, "data": event_data(record.request)})
        journal.passed_on(record.id)
        headers, content = await self._send(event, record.deadline - await journal.now())
        if not is_event(headers):
            return
        try:
            if len(content) > REPLY_BYTES:
                raise bad_answer(self._sink, "it is too long")
            for reply in read_events(headers, content).events:
                with counted(EVENTS, reply.type):
                    await self._replies.receive(reply, journal)
        except ProblemError as error:
            if error.kind in (problems.UNAVAILABLE, problems.OVERLOADED):  # of the store or the artifacts
                raise
            await journal.end(
                record.id, bad_answer(self._sink, error.kind.slug, str(error))
            )  # another attempt would get the same

    async def cancel(self, record: JobRecord) -> None:
        """Tell the predictor to stop. If it does not get to know, the result is discarded when it comes."""
        event = self._event(CANCELLED, record, {}, f"{record.id}-cancelled")
        try:
            await self._send(event.with_data(Cancellation(reason="nobody waits for it any more")), RETRY_SECONDS)
        except ProblemError as error:
            log.info("the cancellation of %s was not sent: %s", record.id, error.kind.slug)

    def _event(self, kind: str, record: JobRecord, extensions: Mapping[str, str], event_id: str) -> CloudEvent:
        trace = passed_on(record.headers)
        return CloudEvent(
            id=event_id,
            source=self._source,
            type=kind,
            subject=record.id,
            time=now(),
            extensions={**self._extensions, **trace, MODEL: record.model, CALLER: record.caller, **extensions},
        )

    async def _send(self, event: CloudEvent, seconds: float) -> tuple[dict[str, str], bytes]:
        """The answer's headers in lower case, and little more than REPLY_BYTES of its body. Raises a ProblemError when
        the sink does not take the event within so many seconds."""
        with counted(EVENTS_SENT, event.type):
            return await ScopedTask(self._exchange(event, seconds)).result()

    async def _exchange(self, event: CloudEvent, seconds: float) -> tuple[dict[str, str], bytes]:
        if not self._sink:
            raise sink_missing()
        if self._predictor_token:  # proves to the predictor whose request it is, whatever brokers are in between
            event = signed(event, self._predictor_token.get_secret_value())
        headers, body = write_event(event)
        headers["Prefer"] = "reply"
        headers |= self._authorization()
        content = bytearray()
        with transport_failures(self._sink):
            async with self._client.stream(
                "POST", self._sink, content=body, headers=headers, timeout=max(seconds, 0.001)
            ) as response:
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > REPLY_BYTES:
                        break
        if response.is_success:
            return {name.lower(): value for name, value in response.headers.items()}, bytes(content)
        if response.status_code in _RETRIED_REFUSALS:
            detail = f"The sink answered with status {response.status_code}."
            raise ProblemError(problems.UNDELIVERED, detail, retry_after=RETRY_SECONDS)
        raise refusal(self._sink, response.status_code, response.headers, bytes(content))

    def _authorization(self) -> dict[str, str]:
        """By the mounted token, if there is one; read each time, as it is replaced before it expires."""
        try:
            return {"Authorization": f"Bearer {self._token.read_text().strip()}"}
        except FileNotFoundError:
            return {}
        except OSError as error:  # whoever mounts it may mend it: no reason to end the job
            detail = f"The token for the sink cannot be read: {error.strerror}."
            raise ProblemError(problems.UNAVAILABLE, detail, retry_after=RETRY_SECONDS) from error
