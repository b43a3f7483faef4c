"""`POST /events`: where a Broker's Triggers deliver results, progress and dead letters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from contract import ProblemError, problems
from web.events.counted_events import counted
from web.events.replies import ReplyReceiver, check_type
from web.metrics import EVENTS
from web.telemetry.name_limit import OTHER
from wire.cloudevents import is_event, is_signed, read_each
from wire.telemetry.tracing import work

if TYPE_CHECKING:
    from collections.abc import Collection

    from contract.cloudevents import CloudEvent
    from web.events.authentication import EventAuthenticator
    from web.jobs.journal import JobJournal

log = logging.getLogger(__name__)


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

        A ProblemError: what is wrong with an event, or a transient one when it should be delivered again. Of a batch
        each event is taken that can be. Where some should come again, the whole batch comes again, and what was taken
        of it changes nothing; what can never be taken is named in a 4xx, after which nobody sends the others again.
        """
        proven = await self._authenticator.check(http_request.headers)
        if not is_event(http_request.headers):
            raise ProblemError(problems.MALFORMED_EVENT, "There is no CloudEvent in this request.")
        mode, events = read_each(http_request.headers, await http_request.body())
        failures = []
        for number, event in enumerate(events):
            try:
                await self._take(event, f"{number}." if mode == "batched" else "", proven)
            except ProblemError as error:
                failures.append(error)
            except Exception:  # as RequestGuard has it; but the others are none the worse for it
                log.exception("an event failed")
                failures.append(ProblemError(problems.INTERNAL, "Something went wrong on the server."))
        if failures:
            raise _of_batch(failures, len(events)) if mode == "batched" else failures[0]
        return Response(status_code=204)

    async def _take(self, event: CloudEvent | ProblemError, where: str, proven: bool) -> None:
        """`where` stands before the names of attributes in problems; `proven`: the delivery proves who sent it."""
        with counted(EVENTS, OTHER if isinstance(event, ProblemError) else event.type):
            if isinstance(event, ProblemError):
                raise event
            check_type(event, where)
            if self._sources and event.source not in self._sources:
                detail = f"{where}source: events from {event.source!r} are not taken here."
                raise ProblemError(problems.FORBIDDEN, detail)
            if self._token and not proven and not is_signed(event, self._token.get_secret_value()):
                raise ProblemError(problems.UNAUTHORIZED, "Events need a signature with the predictors' token.")
            with work(f"receive {event.type}", event.extensions, {"shangcai.job_id": event.subject or ""}):
                await self._replies.receive(event, self._journal)


def _of_batch(failures: list[ProblemError], events: int) -> ProblemError:
    """The problem of a batch of which so many events were not taken: one that has it sent again, if there is one."""
    for error in failures:
        log.info("an event of a batch is not taken: %s", error.kind.slug)
    again = next((error for error in failures if error.kind.transient), None)
    if again is not None:
        return again
    refused = "; ".join(dict.fromkeys(str(error) for error in failures))
    detail = f"{len(failures)} of {events} events were refused, and the others taken: {refused}"
    errors = [item for error in failures for item in error.problem.errors or ()]
    return ProblemError(failures[0].kind, detail, errors=errors or None)
