"""A broker that does what Knative's does, and no more; a process of its own, for tests.

    python tests/scenarios/events/broker.py '{"port": 8090, "triggers": [{"name": "all", "subscriber": "http://127.0.0.1:8081"}]}'

takes the settings below as JSON, or as the path of a file that holds them. `POST` to any path takes an event; `GET
/tally` counts, `DELETE /tally` begins to count anew; `PUT /config` changes all settings but the port. What is taken is
held in memory, as in an InMemoryChannel: it is lost when the process ends.

Source: Knative Eventing's ingress_handler.go, filter_handler.go, event_dispatcher.go and retries.go, and its
specification of delivery.
"""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import httpx2
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract import ProblemError, problems
from contract.cloudevents import ERROR_CODE, ERROR_DATA, ERROR_DESTINATION, CloudEvent, now
from contract.problems import invalid_fields
from wire.cloudevents import is_event, read_events, write_event
from wire.listener import listen
from wire.problems import ProblemHandlers

TTL = "knativebrokerttl"
"""Extension: how many more brokers the event may pass. No subscriber sees it."""

ARRIVAL = "knativearrivaltime"
RETRIED = {404, 408, 409, 429}
"""Statuses that are retried, beside all from 500 on."""

HURRIED = {429, 503}
"""Statuses whose Retry-After counts."""

ERROR_DATA_CHARS = 1024

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of the settings, whose names are written as Knative's."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class Trigger(Part):
    """Who gets which events, and how often it is tried. Without `timeout` an attempt may take for ever."""

    name: str
    filter: dict[str, str] = {}
    subscriber: str
    dead_letter_sink: str | None = None
    retry: int = Field(default=0, ge=0)
    backoff_policy: Literal["exponential", "linear"] = "exponential"
    backoff_delay: Seconds = 0
    retry_after_max: Seconds | None = None
    timeout: Seconds | None = None
    format: Literal["binary", "structured"] = "binary"
    headers: dict[str, str] = Field(default={}, description="Sent along with each event: an Authorization, for one.")

    def wants(self, event: CloudEvent) -> bool:
        return self.filter.items() <= event.attributes.items()

    def pause(self, retries: int, answer: Answer) -> float:
        """Before the next attempt, after so many retries."""
        factor = 2**retries if self.backoff_policy == "exponential" else retries
        pause = self.backoff_delay * factor
        if answer.status in HURRIED and answer.retry_after.isdecimal() and self.retry_after_max is not None:
            pause = max(pause, min(float(answer.retry_after), self.retry_after_max))
        return pause


class Chaos(Part):
    """What goes wrong."""

    duplicates: Share | Annotated[str, Field(pattern="^always [1-9][0-9]*$")] = Field(
        default=0, description='Share of deliveries that are made twice; "always 3": all are made three times.'
    )
    errors: Share = Field(
        default=0,
        description="Share of attempts that fail: half of them before the subscriber is asked, half of them after it "
        "has answered.",
    )
    max_delay: Seconds = Field(default=0, description="Longest wait before an attempt; events overtake each other.")
    hold_first: Seconds = Field(default=0, description="How long nothing is delivered, from the next event on.")
    answer_delay: Seconds = Field(default=0, description="How long the sender waits for its 202.")
    seed: int | None = None

    def copies(self, random: Random) -> int:
        if isinstance(self.duplicates, str):
            return int(self.duplicates.removeprefix("always "))
        return 2 if random.random() < self.duplicates else 1


class Settings(Part):
    """The broker and its Triggers."""

    port: int = 0
    triggers: tuple[Trigger, ...] = ()
    chaos: Chaos = Chaos()
    hold: bool = Field(
        default=False, description="Answer the sender only once its event, and all replies to it, are delivered."
    )
    concurrency: int = Field(default=64, ge=1, description="Most attempts at once.")
    ttl: int = Field(default=255, ge=1, description="Most brokers that an event and the replies to it may pass.")


@dataclass(frozen=True)
class Answer:
    """What came of an attempt; where nothing came, it is Knative's 500."""

    status: int
    body: bytes
    retry_after: str = ""
    reply: CloudEvent | None = None

    @property
    def delivered(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def retried(self) -> bool:
        return self.status in RETRIED or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


@dataclass
class Broker:
    """Takes events and delivers them in tasks of their own."""

    client: httpx2.AsyncClient
    settings: Settings
    counts: Counter[str] = field(default_factory=Counter)
    triggers: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._deliveries: set[asyncio.Task[None]] = set()
        self.configure(self.settings)

    def configure(self, settings: Settings) -> None:
        """From now on; what is being delivered keeps its Trigger."""
        self.settings = settings
        self._random = Random(settings.chaos.seed)
        self._places = asyncio.Semaphore(settings.concurrency)
        self._opens: float | None = None
        for trigger in settings.triggers:
            self.triggers.setdefault(trigger.name, Counter())

    def take(self, event: CloudEvent) -> list[asyncio.Task[None]]:
        """Begin to deliver it to whoever wants it. A MALFORMED_EVENT problem when it has come round too often."""
        left = event.extensions.get(TTL)
        if left is not None and not left.isdecimal():
            raise ProblemError(problems.MALFORMED_EVENT, f"{TTL}: must be a whole number")
        ttl = self.settings.ttl if left is None else int(left) - 1
        if ttl <= 0:
            self.counts["dropped"] += 1
            raise ProblemError(problems.MALFORMED_EVENT, "The event has come round too often.")
        self.counts["taken"] += 1
        if self._opens is None:
            self._opens = asyncio.get_running_loop().time() + self.settings.chaos.hold_first
        extensions = {name: value for name, value in event.extensions.items() if name != TTL}
        event = event.model_copy(update={"extensions": {**extensions, ARRIVAL: now()}})
        begun = []
        for trigger in self.settings.triggers:
            if trigger.wants(event):
                copies = self.settings.chaos.copies(self._random)
                self.triggers[trigger.name]["duplicates"] += copies - 1
                begun += [asyncio.create_task(self._deliver(trigger, event, ttl)) for _ in range(copies)]
        for delivery in begun:
            self._deliveries.add(delivery)
            delivery.add_done_callback(self._deliveries.discard)
        return begun

    def forget(self) -> None:
        """Begin to count anew."""
        for counts in (self.counts, *self.triggers.values()):
            counts.clear()

    def tally(self) -> dict[str, Any]:
        names = ("deliveries", "attempts", "retries", "duplicates", "lostAnswers", "deadLetters", "undelivered")
        total = sum(self.triggers.values(), Counter[str]())
        return {
            **{name: self.counts[name] for name in ("taken", "refused", "replies", "dropped")},
            **{name: total[name] for name in names},
            "inFlight": len(self._deliveries),
            "triggers": {key: {name: counts[name] for name in names} for key, counts in self.triggers.items()},
        }

    async def _deliver(self, trigger: Trigger, event: CloudEvent, ttl: int) -> None:
        counts = self.triggers[trigger.name]
        answer = await self._insist(trigger, trigger.subscriber, event)
        if answer.delivered:
            counts["deliveries"] += 1
            if answer.reply is not None:
                await self._route(answer.reply, ttl)
        elif trigger.dead_letter_sink is not None:
            letter = event.model_copy(update={"extensions": event.extensions | reasons(trigger.subscriber, answer)})
            answer = await self._insist(trigger, trigger.dead_letter_sink, letter)
            counts["deadLetters" if answer.delivered else "undelivered"] += 1
        else:
            counts["undelivered"] += 1

    async def _route(self, reply: CloudEvent, ttl: int) -> None:
        self.counts["replies"] += 1
        try:
            begun = self.take(reply.model_copy(update={"extensions": reply.extensions | {TTL: str(ttl)}}))
        except ProblemError:
            return
        if self.settings.hold:
            await asyncio.gather(*begun)

    async def _insist(self, trigger: Trigger, url: str, event: CloudEvent) -> Answer:
        """Try until it is taken, or refused for good, or was tried often enough."""
        answer = await self._attempt(trigger, url, event)
        for retries in range(trigger.retry):
            if not answer.retried:
                break
            await asyncio.sleep(trigger.pause(retries, answer))
            self.triggers[trigger.name]["retries"] += 1
            answer = await self._attempt(trigger, url, event)
        return answer

    async def _attempt(self, trigger: Trigger, url: str, event: CloudEvent) -> Answer:
        chaos, counts = self.settings.chaos, self.triggers[trigger.name]
        closed = (self._opens or 0) - asyncio.get_running_loop().time()
        await asyncio.sleep(max(closed, 0) + self._random.uniform(0, chaos.max_delay))
        async with self._places:
            counts["attempts"] += 1
            luck = self._random.random()
            if luck < chaos.errors / 2:
                return nothing("the connection broke before the event was sent")
            headers, body = write_event(event, trigger.format)
            try:
                async with asyncio.timeout(trigger.timeout):
                    response = await self.client.post(
                        url, content=body, headers={**headers, "Prefer": "reply", **trigger.headers}
                    )
            except TimeoutError:
                return nothing("the time was over")
            except httpx2.HTTPError as error:
                return nothing(repr(error))
            if luck < chaos.errors:
                counts["lostAnswers"] += 1
                return nothing("the connection broke before the answer came")
            return read_answer(response)


def nothing(reason: str) -> Answer:
    return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"dispatch error: {reason}".encode())


def read_answer(response: httpx2.Response) -> Answer:
    """Success with something in it that is no event is none."""
    answer = Answer(response.status_code, response.content, response.headers.get("retry-after", ""))
    if not answer.delivered:
        return answer
    if not is_event(response.headers):
        return Answer(HTTPStatus.BAD_GATEWAY, answer.body) if answer.body else answer
    try:
        return Answer(answer.status, b"", reply=single_event(response.headers, answer.body))
    except ProblemError:
        return Answer(HTTPStatus.BAD_GATEWAY, answer.body)


def single_event(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    delivery = read_events(headers, body)
    if delivery.mode == "batched":
        raise ProblemError(problems.MALFORMED_EVENT, "A broker takes events one by one.")
    return delivery.events[0]


def reasons(destination: str, answer: Answer) -> dict[str, str]:
    """The extensions of a dead letter. What is cut is the base64, not the answer."""
    printable = re.sub(rb"[\x00-\x1f\x7f]", b"", answer.body)
    return {
        ERROR_DESTINATION: destination,
        ERROR_CODE: str(int(answer.status)),
        ERROR_DATA: base64.b64encode(printable).decode()[:ERROR_DATA_CHARS],
    }


def create_app(broker: Broker) -> Starlette:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with broker.client:
            yield

    async def take(request: Request) -> Response:
        try:
            begun = broker.take(single_event(request.headers, await request.body()))
        except ProblemError:
            broker.counts["refused"] += 1
            raise
        if broker.settings.hold:
            await asyncio.gather(*begun)
        await asyncio.sleep(broker.settings.chaos.answer_delay)
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def tally(_request: Request) -> Response:
        return JSONResponse(broker.tally())

    async def forget(_request: Request) -> Response:
        broker.forget()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def configure(request: Request) -> Response:
        try:
            broker.configure(Settings.model_validate_json(await request.body()))
        except ValidationError as error:
            raise invalid_fields(error, Settings) from None
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return Starlette(
        routes=[
            Route("/tally", tally, methods=["GET"]),
            Route("/tally", forget, methods=["DELETE"]),
            Route("/config", configure, methods=["PUT"]),
            Route("/{path:path}", take, methods=["POST"]),
        ],
        exception_handlers={ProblemError: ProblemHandlers().problem},
        lifespan=lifespan,
    )


def main() -> None:
    [text] = sys.argv[1:]
    settings = Settings.model_validate_json(text if text.startswith("{") else Path(text).read_text())
    limits = httpx2.Limits(
        max_connections=None, keepalive_expiry=2
    )  # servers keep connections longer, or both ends race
    broker = Broker(httpx2.AsyncClient(limits=limits, timeout=None, trust_env=False), settings)
    config = uvicorn.Config(
        create_app(broker), http="h11", ws="none", lifespan="on", log_level="warning", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listen("127.0.0.1", settings.port)])


if __name__ == "__main__":
    main()
