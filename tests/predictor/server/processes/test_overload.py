"""More clients than the predictor has room for."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.slow

CLIENTS = 12


async def test_a_client_that_comes_again_when_it_is_told_to_is_served(start_predictor: Any) -> None:
    server = start_predictor("--max-concurrency", "2", "--max-waiting", "2")
    server.wait_ready()
    refusals: list[httpx2.Response] = []

    async def served(client: httpx2.AsyncClient) -> httpx2.Response:
        while True:
            answer = await client.post(
                "/openai/v1/completions", json={"model": "tiny", "prompt": "moon", "max_tokens": 60, "temperature": 1}
            )
            if answer.status_code != 503:
                return answer
            refusals.append(answer)
            await asyncio.sleep(int(answer.headers["retry-after"]))

    limits = httpx2.Limits(max_connections=CLIENTS)
    async with httpx2.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client, asyncio.timeout(120):
        answers = await asyncio.gather(*(served(client) for _ in range(CLIENTS)))

    assert {answer.status_code for answer in answers} == {200}
    assert refusals
    assert {answer.json()["type"] for answer in refusals} == {"urn:shangcai:problem:overloaded"}
