"""What commands to a real Redis take, and which have failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError

from tests.support.web.samples import Sample
from web.jobs.stores.redis_connection import connect
from wire.shared_store.client import PIPELINE


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Any]:
    made = connect(redis_url, 1.0)
    yield made
    await made.aclose()


def taken(command: str) -> Sample:
    return Sample("store_command_seconds_count", command=command)


def failed(command: str) -> Sample:
    return Sample("store_errors_total", command=command)


async def test_each_command_is_timed(client: Any) -> None:
    hset, hget, errors = taken("HSET"), taken("HGET"), failed("HSET")
    seconds = Sample("store_command_seconds_sum", command="HSET")
    await client.hset("a", "b", "c")
    await client.hset("a", "b", "d")
    assert (hset.grown, hget.grown, errors.grown) == (2, 0, 0)
    assert 0 < seconds.grown < 60


async def test_a_pipeline_is_one(client: Any) -> None:
    pipelines, sets = taken(PIPELINE), taken("SET")
    async with client.pipeline(transaction=False) as pipe:
        pipe.set("a", 1)
        pipe.set("b", 2)
        await pipe.execute()
    async with client.pipeline() as pipe:
        pipe.set("c", 3)
        await pipe.execute()
    assert (await client.get("b"), await client.get("c")) == ("2", "3")
    assert (pipelines.grown, sets.grown) == (2, 0)


async def test_a_command_that_waits_for_something_is_not_timed(client: Any) -> None:
    reads, errors = taken("XREAD"), failed("XREAD")
    await client.xread({"a": "0-0"}, count=1, block=1)
    assert (reads.grown, errors.grown) == (0, 0)
    await client.xread({"a": "0-0"}, count=1)
    assert (reads.grown, errors.grown) == (1, 0)


async def test_a_script_that_is_not_there_yet_is_no_error(client: Any) -> None:
    scripts, errors = taken("EVALSHA"), failed("EVALSHA")
    await client.script_flush()
    assert await client.register_script("return 7")() == 7
    assert (scripts.grown, errors.grown) == (1, 0)


async def test_a_refused_command_has_failed(client: Any) -> None:
    commands, errors, pipelines = taken("INCRBY"), failed("INCRBY"), failed(PIPELINE)
    await client.set("a", "x")
    with pytest.raises(ResponseError):
        await client.incr("a")
    async with client.pipeline(transaction=False) as pipe:
        pipe.incr("a")
        with pytest.raises(ResponseError):
            await pipe.execute()
    assert (commands.grown, errors.grown, pipelines.grown) == (0, 1, 1)


async def test_a_store_that_is_away_makes_commands_fail(closed_port: int) -> None:
    errors = failed("GET")
    away = connect(f"redis://127.0.0.1:{closed_port}/0", 1.0)
    with pytest.raises(RedisError):
        await away.get("a")
    await away.aclose()
    assert errors.grown == 1


@pytest.mark.parametrize(("answer_seconds", "failures"), [(60.0, 0), (0.0, 1)])
async def test_a_command_that_is_given_up_has_failed_only_if_it_was_late(
    client: Any, answer_seconds: float, failures: int
) -> None:
    """The store's patience ends by a cancellation, as the request of a client that leaves does."""
    commands, errors = taken("GET"), failed("GET")
    client.answer_seconds = answer_seconds
    asking = asyncio.create_task(client.observed("GET", asyncio.Event().wait()))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert (commands.grown, errors.grown) == (0, failures)
