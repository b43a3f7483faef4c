"""`POST /events`: where a Broker's Triggers deliver results, progress and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from contract import ProblemError, problems
from web.events.authentication import EventAuthenticator
from web.events.replies import ReplyReceiver, check_type
from web.jobs.service import JobService
from wire.cloudevents import is_event, read_events

if TYPE_CHECKING:
    from collections.abc import Collection


class EventEndpoint:
    """`sources`, where there are any, are the only ones whose events are taken."""

    def __init__(
        self, jobs: JobService, replies: ReplyReceiver, proof: EventAuthenticator, sources: Collection[str]
    ) -> None:
        self._jobs = jobs
        self._replies = replies
        self._proof = proof
        self._sources = sources

    async def take(self, request: Request) -> Response:
        """204 once all events of the request are where they belong; a broker publishes nothing of an empty answer."""
        await self._proof.check(request.headers)
        if not is_event(request.headers):
            raise ProblemError(problems.MALFORMED_EVENT, "There is no CloudEvent in this request.")
        delivery = read_events(request.headers, await request.body())
        events = delivery.events
        for number, event in enumerate(events):
            check_type(event, f"{number}." if delivery.mode == "batched" else "")
            if self._sources and event.source not in self._sources:
                raise ProblemError(problems.FORBIDDEN, f"Events from {event.source!r} are not taken here.")
        for event in events:
            await self._replies.take(event, self._jobs)
        return Response(status_code=204)
