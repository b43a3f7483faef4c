"""The predictor as a Trigger's subscriber: CloudEvents in, reply events out.

KServe's route takes CloudEvents, too, but its answer drops most of their attributes, it refuses some that the
specification allows, and it computes a redelivery again. So the routes here take all events of a model, and KServe's
gets what is no event. Replies have a type and a source of their own, or a Trigger would deliver them to this predictor
for ever (kserve#1671, kserve#1923).
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
from predictor.events.event_generation import EventGeneration
from predictor.events.progress import ProgressPublisher
from predictor.events.reply_builder import ReplyBuilder
from predictor.protocols.access import Access
from predictor.protocols.generation_model import GenerationModel
from predictor.settings import default_source
from wire.cloudevents import is_event, read_events, write_batch, write_event
from wire.concurrency.all_of import all_of
from wire.telemetry.facts import current_facts
from wire.telemetry.tracing import work


class EventSubscriber:
    """Receives the events for one model at `routes`. Progress is published when there is a `publisher`."""

    def __init__(
        self,
        model: GenerationModel,
        replies: ReplyBuilder | None = None,
        deduplicator: Deduplicator | None = None,
        publisher: ProgressPublisher | None = None,
        access: Access | None = None,
    ) -> None:
        self._model = model
        self._replies = replies or ReplyBuilder(default_source(model.name))
        self._deduplicator = deduplicator or Deduplicator()
        self._publisher = publisher
        self._access = access or Access()
        self.routes: list[BaseRoute] = [
            Route("/", self.receive, methods=["POST"]),
            _EventRoute("/v1/models/{name}:predict", self.receive, methods=["POST"]),
        ]

    def takes(self, scope: Scope) -> bool:
        """Whether a request is one for `routes`."""
        return any(route.matches(scope)[0] is Match.FULL for route in self.routes)

    def start(self) -> None:
        """Begin to publish progress. Call it on the server's event loop."""
        if self._publisher is not None:
            self._publisher.start(self._model.startup)

    @property
    def busy(self) -> bool:
        """Whether a generation for an event is running; its delivery may have been given up."""
        return self._deduplicator.busy

    async def close(self) -> None:
        """Cancel what still runs, and close the store and the sink."""
        await self._deduplicator.close()
        if self._publisher is not None:
            await self._publisher.close()

    async def receive(self, http_request: Request) -> Response:
        """The replies, in the content mode of the delivery; 204 when there are none.

        Raises a ProblemError for what is no event, is for another model, may not ask, or should be delivered again.
        """
        if "name" in http_request.path_params:
            self._model.check_name(http_request.path_params["name"])
        delivery = read_events(http_request.headers, await http_request.body())
        for event in delivery.events:
            _check_type(event)
        has_token = self._access.has_token(http_request.headers)
        events = [(event, self._access.caller_of_event(event, has_token)) for event in delivery.events]
        requests = [one for one in events if one[0].type == REQUESTED and self._is_for_model(one[0])]
        metrics.EVENTS.labels("ignored").inc(len(events) - len(requests))
        for event, caller in events:
            if event.type == CANCELLED and event.subject is not None:
                await self._deduplicator.cancel(caller, event.subject)
        replies = await all_of([self._reply(request, caller) for request, caller in requests])
        if not replies:
            return Response(status_code=204)
        if delivery.mode == "batched":
            headers, body = write_batch(replies)
        else:
            headers, body = write_event(replies[0], delivery.mode)
        return Response(body, headers=headers)

    def _is_for_model(self, request: CloudEvent) -> bool:
        """A Trigger without a filter by model delivers the requests for other models, too."""
        return request.extensions.get(MODEL) in (None, self._model.name)

    async def _reply(self, request: CloudEvent, caller: str) -> CloudEvent:
        generation = EventGeneration(request, caller, self._model, self._replies, self._publisher)
        if (facts := current_facts()) is not None:
            facts.job_id = generation.subject
        try:
            with work(f"event {self._model.name}", request.extensions, {"shangcai.job_id": generation.subject}):
                reply = await self._deduplicator.reply(generation)
        except ProblemError:
            metrics.EVENTS.labels("retried").inc()
            raise
        metrics.EVENTS.labels("completed" if reply.type == COMPLETED else "failed").inc()
        return reply


class _EventRoute(Route):
    """Matches CloudEvents only; the routes behind it get the rest."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and not is_event(Headers(scope=scope)):
            return Match.NONE, {}
        return super().matches(scope)


def _check_type(event: CloudEvent) -> None:
    """Raise a ProblemError for an unknown type. The types of our own events are known: a Trigger without a filter by
    type delivers them, too."""
    if event.type not in [row.name for row in EVENT_TYPES]:
        raise invalid_field("type", f"must be {REQUESTED} or {CANCELLED}, not {event.type[:64]!r}")
    if event.type == CANCELLED and event.subject is None:
        raise invalid_field("subject", "is required: what is cancelled")
