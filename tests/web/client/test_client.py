"""The bound on requests at a time, whatever carries them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx2
import pytest

from web.client.client import ModelConnections
from web.settings import Settings


@pytest.mark.parametrize("whole", [True, False])
async def test_an_answer_gives_its_place_back(whole: bool) -> None:
    """httpx2 closes what is streamed, and takes an answer that is there as a whole for closed."""

    async def parts() -> AsyncGenerator[bytes]:
        yield b"{}"

    answered = httpx2.MockTransport(lambda request: httpx2.Response(200, content=b"{}" if whole else parts()))
    settings = Settings.model_validate({"models": {"poet": "http://poet.test"}, "max_connections": 1})
    async with ModelConnections(settings, answered).client as client:
        for _ in range(3):
            async with client.stream("GET", "http://poet.test/") as answer:
                assert await answer.aread() == b"{}"
