"""The predictor as a Trigger's subscriber: CloudEvents in, their replies out.

KServe's own route takes events, too, but loses most of their attributes, refuses some that the specification allows,
and computes again what is delivered again. So it is left what is no event.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from contract.cloudevents import CANCELLED, COMPLETED, EVENT_TYPES, MODEL, REQUESTED, CloudEvent
from contract.problems import ProblemError, invalid_field
from predictor import metrics
from predictor.events.deduplication import Deduplicator
from predictor.events.generation import EventGeneration
from predictor.events.progress import ProgressPublisher
from predictor.events.reply_builder import ReplyBuilder
from predictor.protocols.model import GenerationModel, all_of
from predictor.settings import default_source
from wire.cloudevents import is_event, read_events, write_batch, write_event


class EventSubscriber:
    """Takes the events for one model. Without an `announcer` nobody hears of them before they are done."""

    def __init__(
        self,
        model: GenerationModel,
        replies: ReplyBuilder | None = None,
        ledger: Deduplicator | None = None,
        announcer: ProgressPublisher | None = None,
    ) -> None:
        self._model = model
        self._replies = replies or ReplyBuilder(default_source(model.name))
        self._ledger = ledger or Deduplicator()
        self._announcer = announcer
        self.routes: list[BaseRoute] = [
            Route("/", self.take, methods=["POST"]),
            _EventRoute("/v1/models/{name}:predict", self.take, methods=["POST"]),
        ]

    def start(self) -> None:
        """On the event loop that the server runs on."""
        if self._announcer is not None:
            self._announcer.start(self._model.startup)

    @property
    def busy(self) -> bool:
        """Whether anything is done that an event has asked for; nobody may be waiting for it any more."""
        return self._ledger.busy

    async def close(self) -> None:
        """Give up what still runs, and let go of the store and the sink."""
        await self._ledger.close()
        if self._announcer is not None:
            await self._announcer.close()

    async def take(self, request: Request) -> Response:
        """The replies, in the mode of the request; 204 where there are none to give.

        A ProblemError for what is no event, is not for us, or had better be delivered again.
        """
        if "name" in request.path_params:
            self._model.check_name(request.path_params["name"])
        delivery = read_events(request.headers, await request.body())
        for event in delivery.events:
            _check_type(event)
        requests = [event for event in delivery.events if event.type == REQUESTED and self._is_meant(event)]
        metrics.EVENTS.labels("ignored").inc(len(delivery.events) - len(requests))
        for event in delivery.events:
            if event.type == CANCELLED and event.subject is not None:
                await self._ledger.cancel(event.subject)
        replies = await all_of([self._reply(event) for event in requests])
        if not replies:
            return Response(status_code=204)
        if delivery.mode == "batched":
            headers, body = write_batch(replies)
        else:
            headers, body = write_event(replies[0], delivery.mode)
        return Response(body, headers=headers)

    def _is_meant(self, request: CloudEvent) -> bool:
        """Or another predictor is, and a Trigger without a filter by model has brought it here, too."""
        return request.extensions.get(MODEL) in (None, self._model.name)

    async def _reply(self, request: CloudEvent) -> CloudEvent:
        try:
            reply = await self._ledger.reply(EventGeneration(request, self._model, self._replies, self._announcer))
        except ProblemError:
            metrics.EVENTS.labels("retried").inc()
            raise
        metrics.EVENTS.labels("completed" if reply.type == COMPLETED else "failed").inc()
        return reply


class _EventRoute(Route):
    """Leaves what is no event to the routes behind it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and not is_event(Headers(scope=scope)):
            return Match.NONE, {}
        return super().matches(scope)


def _check_type(event: CloudEvent) -> None:
    """Raise a problem for what nobody here knows. Our own replies are known: a Trigger without a filter brings them
    back."""
    if event.type not in [row.name for row in EVENT_TYPES]:
        raise invalid_field("type", f"must be {REQUESTED} or {CANCELLED}, not {event.type[:64]!r}")
    if event.type == CANCELLED and event.subject is None:
        raise invalid_field("subject", "is required: what is cancelled")
