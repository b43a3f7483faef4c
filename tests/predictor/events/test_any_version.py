"""Fields from the future in what a predictor reads of other versions: events, and replies in the shared store."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
from redis.asyncio import Redis

from contract.cloudevents import CANCELLED, COMPLETED, REQUESTED, Cancellation, CloudEvent
from predictor.events.deduplication import Deduplicator
from predictor.events.redis_reply_store import RedisReplyStore
from predictor.events.subscriber import EventSubscriber
from tests.support.events import newer
from wire.cloudevents import read_events, write_event

REQUEST = CloudEvent(
    id="1",
    source="/test",
    type=REQUESTED,
    subject="job",
    datacontenttype="application/json",
    extensions={"mood": "glad"},
    data=newer('{"prompt": "月"}').encode(),
)


async def send(client: httpx2.AsyncClient, event: CloudEvent) -> httpx2.Response:
    headers, content = write_event(event)
    return await client.post("/", headers=headers, content=content)


async def test_a_request_and_a_cancellation(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("床前")
    answer = await send(client, REQUEST)
    [reply] = read_events(answer.headers, answer.content).events
    assert (reply.type, json.loads(reply.data or b"")["text"]) == (COMPLETED, "床前")
    cancellation = CloudEvent(id="2", source="/test", type=CANCELLED, subject="job").with_data(Cancellation(reason="x"))
    cancellation = cancellation.model_copy(update={"data": newer(cancellation.data or b"").encode()})
    assert (await send(client, cancellation)).status_code == 204


async def test_a_stored_reply(start_server: Callable[..., Any], engine: Any, redis_server: Any) -> None:
    def subscriber(model: Any) -> EventSubscriber:
        return EventSubscriber(model, deduplicator=Deduplicator(RedisReplyStore(redis_server.url, "/poet")))

    engine.enqueue("床前")
    served = await start_server(engine, subscriber)
    async with httpx2.AsyncClient(base_url=served.url, verify=False) as client:
        first = await send(client, REQUEST)
    async with Redis.from_url(redis_server.url) as redis:
        [name] = await redis.keys("shangcai:reply:*")
        stored = json.loads(await redis.get(name) or b"")
        await redis.set(name, json.dumps(stored | {"mood": "glad"}))

    again = await start_server(engine, subscriber)
    async with httpx2.AsyncClient(base_url=again.url, verify=False) as client:
        answer = await send(client, REQUEST)
    assert (answer.status_code, answer.content) == (200, first.content)
    assert len(engine.tasks) == 1
