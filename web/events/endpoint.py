"""`POST /events`: where a Broker's Triggers deliver results, progress and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from contract import ProblemError, problems
from web.events.replies import ReplyReceiver, check_type
from wire.cloudevents import is_event, is_signed, read_events

if TYPE_CHECKING:
    from collections.abc import Collection

    from web.events.authentication import EventAuthenticator
    from web.jobs.journal import JobJournal


class EventEndpoint:
    """Events of other `sources` are refused, unless `sources` is empty. With the predictors' `token`, so are events
    that neither their delivery proves nor a signature: results of somebody else, and dead letters of others' requests.
    """

    def __init__(
        self,
        journal: JobJournal,
        replies: ReplyReceiver,
        authenticator: EventAuthenticator,
        sources: Collection[str],
        token: SecretStr | None = None,
    ) -> None:
        self._token = token
        self._journal = journal
        self._replies = replies
        self._authenticator = authenticator
        self._sources = sources

    async def receive(self, http_request: Request) -> Response:
        """204 once all events of the request are written to their jobs. A broker publishes nothing of an empty answer.

        A ProblemError: what is wrong with an event, or UNAVAILABLE when it should be delivered again.
        """
        proven = await self._authenticator.check(http_request.headers)
        if not is_event(http_request.headers):
            raise ProblemError(problems.MALFORMED_EVENT, "There is no CloudEvent in this request.")
        delivery = read_events(http_request.headers, await http_request.body())
        for number, event in enumerate(delivery.events):
            check_type(event, f"{number}." if delivery.mode == "batched" else "")
            if self._sources and event.source not in self._sources:
                raise ProblemError(problems.FORBIDDEN, f"Events from {event.source!r} are not taken here.")
            if self._token and not proven and not is_signed(event, self._token.get_secret_value()):
                raise ProblemError(problems.UNAUTHORIZED, "Events need a signature with the predictors' token.")
        for event in delivery.events:
            await self._replies.receive(event, self._journal)
        return Response(status_code=204)
