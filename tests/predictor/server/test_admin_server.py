"""The admin port puts a model to sleep and wakes it; the serving port does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from predictor.protocols.kserve_text import TextModel
from tests.support.serving import serving
from tests.support.waiting import SECONDS, eventually
from wire.listener import listen

CHAT = {"model": "poet", "messages": [{"role": "user", "content": "moon"}]}
ROUTE = "/openai/v1/chat/completions"


@pytest.fixture
async def admin(engine: Any) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """Clients of the admin port and of the serving port, of a model that is not loaded yet."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    model = TextModel("poet", engine)
    async with (
        serving(model, admin=listener) as (_, url),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, verify=False) as of_admin,
        httpx2.AsyncClient(base_url=url, timeout=SECONDS, verify=False) as of_server,
    ):
        yield of_admin, of_server


@pytest.fixture
async def clients(
    admin: tuple[httpx2.AsyncClient, httpx2.AsyncClient], engine: Any
) -> tuple[httpx2.AsyncClient, httpx2.AsyncClient]:
    """The same, once it is loaded."""
    engine.load_gate.set()

    async def ready() -> bool:
        return (await admin[1].get("/v2/health/ready")).status_code == 200

    await eventually(ready)
    return admin


async def is_sleeping(admin: httpx2.AsyncClient) -> bool:
    document = (await admin.get("/is_sleeping")).json()
    assert document.keys() == {"is_sleeping"}
    return bool(document["is_sleeping"])


async def test_it_sleeps_and_wakes_as_vllm_does(clients: Any, engine: Any) -> None:
    admin, _ = clients
    assert not await is_sleeping(admin)

    asleep = await admin.post("/sleep?level=1&mode=abort")
    assert (asleep.status_code, asleep.content) == (200, b"")
    assert await is_sleeping(admin)
    assert engine.slept == [1]

    awake = await admin.post("/wake_up")
    assert (awake.status_code, awake.content) == (200, b"")
    assert not await is_sleeping(admin)


async def test_asleep_it_is_ready_and_answers(clients: Any, engine: Any) -> None:
    admin, server = clients
    await admin.post("/sleep")
    assert engine.slept == [2], "the engine's usual level"
    for path in ("/v2/health/ready", "/v2/health/live", "/v2/models/poet/ready", "/v1/models/poet"):
        assert (await server.get(path)).status_code == 200

    engine.enqueue("月")
    answer = await server.post(ROUTE, json=CHAT)

    assert answer.json()["choices"][0]["message"]["content"] == "月"
    assert not await is_sleeping(admin)
    page = (await server.get("/metrics")).text
    assert 'shangcai_engine_sleep_state{sleep_state="awake"} 1.0' in page
    assert 'shangcai_wake_up_seconds_count{sleep_level="2"}' in page


async def test_unload_and_load_are_of_the_one_name(clients: Any, engine: Any) -> None:
    admin, server = clients
    assert (await admin.post("/v2/repository/models/poet/unload")).json() == {"name": "poet", "unload": True}
    assert engine.slept == [2]
    assert (await server.get("/v2/health/ready")).status_code == 200
    assert (await admin.post("/v2/repository/models/poet/load", json={})).json() == {"name": "poet", "load": True}
    assert not await is_sleeping(admin)

    for verb in ("load", "unload"):
        answer = await admin.post(f"/v2/repository/models/other/{verb}")
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:shangcai:problem:unknown-model"


@pytest.mark.parametrize("path", ["/sleep", "/wake_up", "/is_sleeping"])
async def test_the_serving_port_does_not_know_them(clients: Any, engine: Any, path: str) -> None:
    _, server = clients
    for method in ("GET", "POST"):
        assert (await server.request(method, path)).status_code == 404
    assert engine.slept == []


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_the_serving_port_refuses_to_load_and_unload(clients: Any, engine: Any, verb: str) -> None:
    _, server = clients
    answer = await server.post(f"/v2/repository/models/poet/{verb}")
    assert answer.status_code == 501
    assert engine.slept == []


@pytest.mark.parametrize(
    ("path", "field", "detail"),
    [
        ("/sleep?level=0", "level", "input should be 1 or 2"),
        ("/sleep?level=deep", "level", "input should be 1 or 2"),
        ("/sleep?mode=keep", "mode", "input should be wait or abort"),
        ("/sleep?offload_tags=weights", "offload_tags", "unknown field; allowed are level, mode"),
        ("/wake_up?tags=weights", "tags", "unknown field; none is allowed"),
        ("/sleep?level=1&level=2", "level", "may be given once"),
    ],
)
async def test_a_wrong_value_is_named_with_what_is_allowed(
    clients: Any, engine: Any, path: str, field: str, detail: str
) -> None:
    admin, _ = clients
    answer = await admin.post(path)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"] == [{"field": field, "detail": detail}]
    assert engine.slept == []


@pytest.mark.parametrize("path", ["/sleep", "/wake_up", "/v2/repository/models/poet/load"])
async def test_before_it_is_loaded_it_cannot_sleep(admin: Any, engine: Any, path: str) -> None:
    answer = await admin[0].post(path)

    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:shangcai:problem:loading"
    assert not await is_sleeping(admin[0])


async def test_a_browsers_page_is_refused(clients: Any, engine: Any) -> None:
    answer = await clients[0].post("/sleep", headers={"Origin": "http://example.test"})

    assert answer.status_code == 403
    assert engine.slept == []


async def test_a_wake_up_that_fails_is_a_problem(clients: Any, engine: Any) -> None:
    admin, server = clients
    await admin.post("/sleep")
    engine.wake_errors = [RuntimeError("boom"), RuntimeError("boom")]

    for answer in (await admin.post("/wake_up"), await server.post(ROUTE, json=CHAT)):
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:shangcai:problem:unavailable"
        assert "boom" not in answer.text
    assert (await server.get("/v2/health/live")).status_code == 200

    engine.enqueue("月")
    assert (await server.post(ROUTE, json=CHAT)).status_code == 200


async def test_other_paths_are_problems_too(clients: Any) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/sleep", 405)):
        answer = await clients[0].request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
