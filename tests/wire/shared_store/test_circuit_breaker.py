"""A store that one can do without is left alone after an outage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import LockError

from wire.shared_store.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)


def breaker(seconds: float) -> CircuitBreaker:
    return CircuitBreaker(seconds, log, lost="it is lost", back="it is back")


class Store:
    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    async def command(self) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("error", [RedisConnectionError("x"), OSError("x"), RuntimeError("x")])
async def test_after_an_outage_it_is_not_asked_for_a_while(error: Exception) -> None:
    store, asked = Store(error, "an answer"), breaker(60)
    assert [await asked.ask(store.command) for _ in range(2)] == [None, None]
    assert store.answers == ["an answer"]


async def test_the_log_is_told_once_that_it_is_lost_and_once_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store, asked = Store(OSError("x"), OSError("x"), 1, 2), breaker(0)
    assert [await asked.ask(store.command) for _ in range(4)] == [None, None, 1, 2]
    assert caplog.messages == ["it is lost: x", "it is back"]


async def test_an_error_of_a_lock_is_no_outage() -> None:
    store, asked = Store(LockError("x"), "an answer"), breaker(60)
    with pytest.raises(LockError):
        await asked.ask(store.command)
    assert await asked.ask(store.command) == "an answer"


async def test_a_cancellation_that_the_command_has_lost_is_kept() -> None:
    async def loses_its_cancellation() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def ask(command: Callable[[], Awaitable[None]]) -> None:
        await breaker(60).ask(command)

    task = asyncio.create_task(ask(loses_its_cancellation))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
