"""Ready means that a request sent now is answered; live means that the engine still moves."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException

from predictor.errors import ModelError
from tests.support.serving import serving
from tests.support.waiting import eventually

CHAT = ("/openai/v1/chat/completions", {"model": "poet", "messages": [{"role": "user", "content": "moon"}]})
COMPLETION = ("/openai/v1/completions", {"model": "poet", "prompt": "moon"})
PREDICT = ("/v1/models/poet:predict", {"instances": [{"prompt": "moon"}]})
INFER = (
    "/v2/models/poet/infer",
    {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["moon"]}]},
)
GENERATING = pytest.mark.parametrize(("path", "body"), [CHAT, COMPLETION, PREDICT, INFER])
READINESS = pytest.mark.parametrize("path", ["/v1/models/poet", "/v2/health/ready", "/v2/models/poet/ready"])


@READINESS
async def test_while_loading_readiness_says_what_the_model_is_busy_with(
    loading_client: httpx2.AsyncClient, engine: Any, path: str
) -> None:
    await eventually(engine.loading.is_set)

    answer = await loading_client.get(path)

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    problem = answer.json()
    assert problem["type"] == "urn:shangcai:problem:loading"
    assert problem["phase"] == "pretending to load"
    assert problem["seconds"] >= 0
    assert "pretending to load" in problem["error"]


@GENERATING
async def test_while_loading_a_generation_is_refused_with_the_time_to_come_back(
    loading_client: httpx2.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await loading_client.post(path, json=body)

    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:shangcai:problem:loading"
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/", "/v2/health/live", "/metrics", "/openai/v1/models", "/v1/models", "/v2/models"])
async def test_what_needs_no_model_answers_while_loading(loading_client: httpx2.AsyncClient, path: str) -> None:
    assert (await loading_client.get(path)).status_code == 200


@READINESS
async def test_readiness_turns_true_when_loading_is_done(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 200
    assert answer.json().get("ready") is True


@READINESS
async def test_a_dead_engine_is_not_ready_and_says_so(client: httpx2.AsyncClient, engine: Any, path: str) -> None:
    engine.is_alive = False

    answer = await client.get(path)

    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:shangcai:problem:unavailable"


@GENERATING
async def test_a_dead_engine_takes_no_requests(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    engine.is_alive = False

    answer = await client.post(path, json=body)

    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:shangcai:problem:unavailable"
    assert engine.tasks == []


async def test_a_dead_engine_is_not_live(client: httpx2.AsyncClient, engine: Any) -> None:
    assert (await client.get("/v2/health/live")).status_code == 200
    engine.is_alive = False

    answer = await client.get("/v2/health/live")

    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:shangcai:problem:unavailable"


@pytest.mark.parametrize(
    "path", ["/v1/models/cook", "/v2/models/cook/ready", "/v2/models/cook", "/openai/v1/models/cook"]
)
async def test_an_unknown_model_is_not_found(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:shangcai:problem:unknown-model"
    assert "cook" in answer.json()["detail"]


async def test_a_model_that_cannot_be_loaded_ends_the_server(loading_server: Any) -> None:
    loading_server.engine.load_error = ModelError("the weights are missing")
    loading_server.engine.load_gate.set()

    await eventually(lambda: loading_server.model.startup.error)
    assert loading_server.model.startup.error == "the weights are missing"
    assert not loading_server.model.alive
    assert not await loading_server.model.healthy()

    async def refused() -> bool:
        try:
            async with httpx2.AsyncClient() as client:
                await client.get(loading_server.url)
        except httpx2.TransportError:
            return True
        return False

    async with asyncio.timeout(60):
        while not await refused():
            await asyncio.sleep(0.01)


async def test_over_grpc_a_loading_model_is_unavailable(loading_server: Any) -> None:
    """KServe calls `load` for a gRPC request to a model that is not ready."""
    with pytest.raises(GrpcException) as refused:
        loading_server.model.load()

    assert refused.value.status_code == StatusCode.UNAVAILABLE
    assert "poet is not ready" in refused.value.details
    assert not loading_server.model.ready


async def test_an_engine_that_was_loaded_before_is_not_loaded_again(engine: Any) -> None:
    """As in a process that was restored."""
    from predictor.protocols.kserve_text import TextModel

    model = TextModel("poet", engine)
    model.loaded = True
    async with serving(model):
        await eventually(lambda: model.startup.ready)
    assert not engine.loading.is_set()
