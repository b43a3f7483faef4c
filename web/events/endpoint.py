"""`POST /events`: where a Broker's Triggers deliver results, progress and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from contract import ProblemError, problems
from web.events.replies import ReplyReceiver, check_type
from wire.cloudevents import is_event, read_events

if TYPE_CHECKING:
    from collections.abc import Collection

    from web.events.authentication import EventAuthenticator
    from web.jobs.journal import JobJournal


class EventEndpoint:
    """Events of other `sources` are refused, unless `sources` is empty."""

    def __init__(
        self,
        journal: JobJournal,
        replies: ReplyReceiver,
        authenticator: EventAuthenticator,
        sources: Collection[str],
    ) -> None:
        self._journal = journal
        self._replies = replies
        self._authenticator = authenticator
        self._sources = sources

    async def receive(self, http_request: Request) -> Response:
        """204 once all events of the request are written to their jobs. A broker publishes nothing of an empty answer.

        A ProblemError: what is wrong with an event, or UNAVAILABLE when it should be delivered again.
        """
        await self._authenticator.check(http_request.headers)
        if not is_event(http_request.headers):
            raise ProblemError(problems.MALFORMED_EVENT, "There is no CloudEvent in this request.")
        delivery = read_events(http_request.headers, await http_request.body())
        for number, event in enumerate(delivery.events):
            check_type(event, f"{number}." if delivery.mode == "batched" else "")
            if self._sources and event.source not in self._sources:
                raise ProblemError(problems.FORBIDDEN, f"Events from {event.source!r} are not taken here.")
        for event in delivery.events:
            await self._replies.receive(event, self._journal)
        return Response(status_code=204)
