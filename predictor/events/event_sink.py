"""Where events go that nobody waits for: to K_SINK, each tried once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import SecretStr

from contract.cloudevents import CloudEvent
from wire.cloudevents import signed, write_event

if TYPE_CHECKING:  # imported only where a sink is configured
    import httpx2

log = logging.getLogger(__name__)

QUEUE = 256
"""Most events that wait to be sent; another one replaces the oldest."""

SEND_SECONDS = 2.0
"""Longest that sending one event may take."""


class EventSink:
    """Sends events to `url` in the background, with `extensions` added to each; signed, if there is a `token`."""

    def __init__(
        self,
        url: str,
        extensions: Mapping[str, str] | None = None,
        *,
        queue: int = QUEUE,
        send_seconds: float = SEND_SECONDS,
        token: SecretStr | None = None,
    ) -> None:
        self._token = token
        self._url = url
        self._extensions = dict(extensions or {})
        self._send_seconds = send_seconds
        self._queue: asyncio.Queue[CloudEvent] = asyncio.Queue(queue)
        self._failing = False

    def put(self, event: CloudEvent) -> None:
        """Send an event soon; never waits and never fails."""
        if self._queue.full():
            self._queue.get_nowait()
        event = event.model_copy(update={"extensions": event.extensions | self._extensions})
        self._queue.put_nowait(signed(event, self._token.get_secret_value()) if self._token else event)

    async def send(self) -> None:
        """Send what is put, until this is cancelled. Logs the first of several failures in a row."""
        import httpx2

        async with httpx2.AsyncClient(timeout=self._send_seconds) as client:
            while True:
                event = await self._queue.get()
                failure = await self._post(client, event)
                if failure and not self._failing:
                    log.warning("%s does not take what is announced: %s", self._url, failure)
                self._failing = failure is not None

    async def _post(self, client: httpx2.AsyncClient, event: CloudEvent) -> str | None:
        """Send one event; why it was not accepted, or None."""
        headers, body = write_event(event)
        try:
            async with asyncio.timeout(self._send_seconds):  # httpx2 bounds each of its steps, not their sum
                answer = await client.post(self._url, headers=headers, content=body)
        except Exception as error:  # no failure of a sink may stop a generation
            return f"{type(error).__name__}: {error}"
        return None if answer.is_success else f"status {answer.status_code}"
