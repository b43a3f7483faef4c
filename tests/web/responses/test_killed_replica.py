"""A replica that is killed in the middle of a response: another one goes on with it, and so does its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest
import redis
from starlette.types import ASGIApp

from tests.support.waiting import SECONDS
from tests.support.web.replicas import StartReplica
from web.app import create_app
from web.jobs.stores.redis_keys import CONSUMER, GROUP
from web.settings import Settings

pytestmark = pytest.mark.slow

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def end_leases(redis_client: redis.Redis) -> None:
    """Of the poet's jobs that are claimed: as if nobody had renewed them for a minute."""
    queue = "shangcai:queue:poet"
    claimed: Any = redis_client.xpending_range(queue, GROUP, "-", "+", 9, CONSUMER)
    redis_client.xclaim(queue, GROUP, CONSUMER, 0, [one["message_id"] for one in claimed], idle=60_000, justid=True)


async def test_the_stream_goes_on_and_nothing_is_told_twice(
    start_replica: StartReplica,
    serve: Callable[[ASGIApp], Awaitable[str]],
    raw_server: Callable[..., Awaitable[str]],
    stream: Callable[..., bytes],
    redis_url: str,
    redis_client: redis.Redis,
) -> None:
    whole = stream("春", "天")
    answers = iter([whole[: whole.rindex(b"data", 0, whole.index("天".encode()))], whole])
    asked: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(1)
        writer.write(HEAD + next(answers))
        await writer.drain()
        if len(asked) == 1:
            await reader.read()  # until the replica is gone
        writer.close()

    upstream = await raw_server(answer)
    killed, url = await asyncio.to_thread(start_replica, upstream, redis_url)
    http_client: Any = httpx2.AsyncClient(trust_env=False, timeout=SECONDS)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=http_client) as client:
        events: list[Any] = []
        answered = await client.responses.create(model="poet", input="x", background=True, stream=True)

        async def follow() -> None:
            async for event in answered:
                events.append(event)
                if event.type == "response.output_text.delta":
                    killed.kill()

        with pytest.raises(openai.APIConnectionError):
            await follow()
        await asyncio.to_thread(killed.wait)
        end_leases(redis_client)
        other = await serve(create_app(Settings(models={"poet": {"url": upstream}}, store_url=redis_url)))
        again = client.with_options(base_url=f"{other}/v1")
        response, last = events[0].response.id, events[-1].sequence_number
        rest = await again.responses.retrieve(response, stream=True, starting_after=last)
        async with asyncio.timeout(SECONDS):
            events += [event async for event in rest]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "春天"
    assert (events[-1].type, events[-1].response.output_text) == ("response.completed", "春天")
    assert len(asked) == 2
