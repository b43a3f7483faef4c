"""Receivers of webhooks."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from tests.support.web.webhook_receiver import Answer, Receiver

Receive = Callable[..., Awaitable[Receiver]]


@pytest.fixture
async def receiver() -> AsyncGenerator[Receive]:
    """Opens receivers that give these answers."""
    opened: list[Receiver] = []

    async def start(*answers: Answer, trust: ssl.SSLContext | None = None) -> Receiver:
        opened.append(Receiver(*answers))
        await opened[-1].open(trust)
        return opened[-1]

    yield start
    for each in opened:
        await each.close()
