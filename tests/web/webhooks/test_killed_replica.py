"""A replica that is killed in the middle of a delivery: another one makes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx2
import pytest

from tests.support.waiting import SECONDS, eventually
from tests.support.web.replicas import StartReplica
from tests.support.web.webhook_receiver import SECRET, Receiver, answer

pytestmark = pytest.mark.slow

Receive = Callable[..., Awaitable[Receiver]]


async def test_it_is_delivered_by_another_replica(
    start_replica: StartReplica, receiver: Receive, redis_url: str, closed_port: int
) -> None:
    async def kill(_writer: asyncio.StreamWriter) -> None:
        killed.kill()
        await asyncio.to_thread(killed.wait)

    there = await receiver(kill, answer(204))
    upstream = f"http://127.0.0.1:{closed_port}"
    environment = {"WEBHOOK_HOSTS": json.dumps([there.host]), "WEBHOOK_SECRET": SECRET}
    # Its claim ends soon after its attempt.
    killed, url = await asyncio.to_thread(start_replica, upstream, redis_url, WEBHOOK_SECONDS="1", **environment)
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=SECONDS) as client:
        body = {"prompt": "x", "webhook": there.url}
        answered = await client.post("/generate", json=body, headers={"Prefer": "respond-async"})
        location = answered.headers["location"]
        with suppress(httpx2.TransportError):  # it may be dead by then
            await client.delete(location)  # which is an end, too
    await there.has_received(1)
    environment["WEBHOOK_SECONDS"] = str(SECONDS)
    _, url = await asyncio.to_thread(start_replica, upstream, redis_url, **environment)
    first, second = await there.has_received(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.verified()["subject"] == location.rpartition("/")[2]
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=SECONDS) as client:

        async def delivered() -> bool:
            return bool((await client.get(location)).json()["webhook"]["delivered"])

        await eventually(delivered, "it is noted")
