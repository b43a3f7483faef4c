"""With a token the predictor generates for nobody else: neither over HTTP nor gRPC nor by an event."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import httpx2
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from pydantic import SecretStr

from contract.callers import DEFAULT_CALLER, EVENTS_CALLER
from contract.cloudevents import CALLER, CANCELLED, COMPLETED, FAILED, REQUESTED, SIGNATURE, CloudEvent
from contract.limits import BODY_BYTES
from predictor.protocols.access import Access
from predictor.protocols.kserve_text import TextModel
from predictor.server.data_plane import GrpcDataPlane
from predictor.server.grpc_server import start_grpc_server
from tests.support.processes import free_port
from tests.support.scripted_engine import ScriptedEngine
from tests.support.serving import serving
from tests.support.waiting import eventually
from wire.cloudevents import Mode, read_events, signed, write_event
from wire.request_context import CALLER_HEADER

TOKEN = "a-token-of-the-predictors"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BASIC = {"Authorization": f"Basic {base64.b64encode(f'events:{TOKEN}'.encode()).decode()}"}
TENSOR: dict[str, Any] = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["moon"]}
WORK: dict[str, dict[str, Any]] = {
    "/openai/v1/chat/completions": {"model": "poet", "messages": [{"role": "user", "content": "moon"}]},
    "/openai/v1/completions": {"model": "poet", "prompt": "moon"},
    "/v1/models/poet:predict": {"instances": [{"prompt": "moon"}]},
    "/v2/models/poet/infer": {"inputs": [TENSOR]},
}
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": REQUESTED}

Start = Callable[..., Any]


class Recorder(TextModel):
    """A model that remembers whose tasks it was given."""

    def __init__(self, engine: ScriptedEngine) -> None:
        super().__init__("poet", engine)
        self._tasks = engine.tasks

    @property
    def callers(self) -> list[str]:
        return [task.caller for task in self._tasks]


@pytest.fixture
async def start(engine: ScriptedEngine) -> AsyncIterator[Start]:
    """Starts a server with this access; gives the model and a client."""
    async with AsyncExitStack() as stack:

        async def begin(access: Access | None) -> tuple[Recorder, httpx2.AsyncClient]:
            model = Recorder(engine)
            _, url = await stack.enter_async_context(serving(model, access=access))
            client = httpx2.AsyncClient(base_url=url, trust_env=False, verify=False)
            await stack.enter_async_context(client)
            engine.load_gate.set()
            await eventually(lambda: model.startup.ready)
            return model, client

        yield begin


def locked(**settings: bool) -> Access:
    return Access(SecretStr(TOKEN), **settings)


def requested(data: bytes = b'{"prompt": "moon"}', **fields: Any) -> CloudEvent:
    attributes = {"id": "1", "source": "/web", "type": REQUESTED, "subject": "job", "datacontenttype": JSON}
    return CloudEvent(**{**attributes, "data": data, **fields})


JSON = "application/json"


async def send(
    client: httpx2.AsyncClient, event: CloudEvent, headers: dict[str, str] | None = None, mode: Mode = "binary"
) -> httpx2.Response:
    written, body = write_event(event, mode)
    return await client.post("/", headers={**written, **(headers or {})}, content=body)


def reply(answer: httpx2.Response) -> CloudEvent:
    assert answer.status_code == 200, answer.text
    [event] = read_events(answer.headers, answer.content).events
    return event


# Requests


@pytest.mark.parametrize("path", WORK)
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}, {"Authorization": "Basic ???"}],
    ids=["none", "another", "no scheme", "no base64"],
)
async def test_work_is_refused_without_the_token(
    start: Start, engine: ScriptedEngine, path: str, headers: dict[str, str]
) -> None:
    _, client = await start(locked())
    answer = await client.post(path, json=WORK[path], headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:shangcai:problem:unauthorized"
    assert "error" in answer.json()  # what the clients of each protocol look for
    assert TOKEN not in answer.text
    assert not engine.tasks


@pytest.mark.parametrize("path", WORK)
async def test_work_is_done_with_the_token(start: Start, engine: ScriptedEngine, path: str) -> None:
    _, client = await start(locked())
    engine.enqueue("moon")
    assert (await client.post(path, json=WORK[path], headers=BEARER)).status_code == 200


async def test_nothing_is_read_of_the_body_of_somebody_without_the_token(start: Start) -> None:
    _, client = await start(locked())
    too_large = b" " * (BODY_BYTES + 1)
    assert (await client.post("/v1/models/poet:predict", content=too_large)).status_code == 401
    assert (await client.post("/v1/models/poet:predict", content=too_large, headers=BEARER)).status_code == 413


async def test_the_head_of_an_event_opens_no_other_route(start: Start, engine: ScriptedEngine) -> None:
    _, client = await start(locked(events_open=True))
    for path in WORK:
        if ":predict" not in path:  # which takes events, too
            assert (await client.post(path, json=WORK[path], headers=EVENT)).status_code == 401, path
    assert not engine.tasks


async def test_health_metrics_and_models_stay_open(start: Start) -> None:
    _, client = await start(locked())
    for path in ("/", "/v2/health/ready", "/v2/health/live", "/metrics", "/v2/models/poet", "/v1/models/poet"):
        assert (await client.get(path)).status_code == 200, path
    assert (await client.get("/openai/v1/models")).status_code == 200


@pytest.mark.parametrize(
    ("access", "headers", "caller"),
    [
        (None, {CALLER_HEADER: "ann"}, DEFAULT_CALLER),
        (None, {CALLER_HEADER: "ann", **BEARER}, DEFAULT_CALLER),
        (locked(), {CALLER_HEADER: "ann", **BEARER}, "ann"),
        (locked(), {CALLER_HEADER: "a b", **BEARER}, DEFAULT_CALLER),
        (locked(), BEARER, DEFAULT_CALLER),
    ],
    ids=["no token here", "no token here, one sent", "token", "no name", "none named"],
)
@pytest.mark.parametrize("path", WORK)
async def test_a_caller_is_believed_with_the_token_only(
    start: Start, engine: ScriptedEngine, path: str, access: Access | None, headers: dict[str, str], caller: str
) -> None:
    model, client = await start(access)
    engine.enqueue("moon")
    assert (await client.post(path, json=WORK[path], headers=headers)).status_code == 200
    assert model.callers == [caller]


async def test_the_log_names_a_caller_that_is_believed(
    start: Start, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, client = await start(locked())
    path = "/v1/models/poet:predict"

    callers = ({CALLER_HEADER: "ann", **BEARER}, {CALLER_HEADER: "bob"}, {CALLER_HEADER: "e v e", **BEARER})
    answers: list[httpx2.Response] = []
    logged: list[str] = []

    def comes() -> bool:  # each line after its answer
        logged[:] = [record.getMessage() for record in caplog.records if record.name == "wire.request_context"]
        return len(logged) == len(answers)

    for headers in callers:
        engine.enqueue("moon")
        answers.append(await client.post(path, json=WORK[path], headers=headers))
        await eventually(comes)
    assert ["caller ann" in line for line in logged] == [True, False, False]
    assert not [line for line in logged if TOKEN in line or "bob" in line or "e v e" in line]


# gRPC


@pytest.mark.parametrize(
    ("access", "metadata", "caller"),
    [
        (locked(), [], None),
        (locked(), [("authorization", "Bearer x")], None),
        (locked(), [("authorization", f"Bearer {TOKEN}"), ("x-shangcai-caller", "ann")], "ann"),
        (Access(), [("x-shangcai-caller", "ann")], DEFAULT_CALLER),
    ],
    ids=["none", "another", "token", "no token here"],
)
async def test_over_grpc_it_is_the_same(
    start: Start, engine: ScriptedEngine, access: Access, metadata: list[tuple[str, str]], caller: str | None
) -> None:
    model, _ = await start(access)
    engine.enqueue("moon")
    tensor = messages.ModelInferRequest.InferInputTensor(
        name="prompt", datatype="BYTES", shape=[1], contents=messages.InferTensorContents(bytes_contents=[b"moon"])
    )
    message = messages.ModelInferRequest(model_name="poet", inputs=[tensor]).SerializeToString()
    port = free_port()
    registry = GrpcDataPlane(model, repository(model), access)
    server = await start_grpc_server("127.0.0.1", port, registry, threads=1)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await channel.unary_unary("/inference.GRPCInferenceService/ModelReady")(b"\x0a\x04poet")
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, metadata=metadata)
            if caller is None:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
                assert not engine.tasks
            else:
                assert await call
                assert model.callers == [caller]
    finally:
        await server.stop(None)


def repository(model: TextModel) -> Any:
    from kserve.model_repository import ModelRepository

    registry = ModelRepository()
    registry.update(model)
    return registry


# Events


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_an_event_without_proof_is_refused(start: Start, engine: ScriptedEngine, mode: Mode) -> None:
    _, client = await start(locked())
    for extensions in ({}, {CALLER: "ann"}, {SIGNATURE: ""}, {SIGNATURE: "0" * 64, CALLER: "ann"}):
        answer = await send(client, requested(extensions=extensions), mode=mode)
        assert answer.status_code == 401, answer.text  # which brokers do not send again
    assert not engine.tasks


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize("added", [{}, {"knativearrivaltime": "2026-01-31T08:00:00Z"}])
async def test_a_signed_event_is_its_callers_whatever_a_broker_adds(
    start: Start, engine: ScriptedEngine, mode: Mode, added: dict[str, str]
) -> None:
    model, client = await start(locked())
    engine.enqueue("moon")
    event = signed(requested(extensions={CALLER: "ann"}), TOKEN)
    event = event.model_copy(update={"extensions": event.extensions | added})
    answered = reply(await send(client, event, mode=mode))
    assert answered.type == COMPLETED
    assert model.callers == ["ann"]
    assert answered.extensions[CALLER] == "ann"
    assert SIGNATURE not in answered.extensions  # its builder has no token here


@pytest.mark.parametrize(
    "change",
    [
        {"id": "2"},
        {"subject": "another"},
        {"data": b'{"prompt": "sun"}'},
        {"extensions": {CALLER: "bob"}},
        {"extensions": {}},
    ],
    ids=["id", "subject", "data", "caller", "no caller"],
)
async def test_a_signature_is_for_one_event(start: Start, engine: ScriptedEngine, change: dict[str, Any]) -> None:
    _, client = await start(locked())
    event = signed(requested(extensions={CALLER: "ann"}), TOKEN)
    signature = {SIGNATURE: event.extensions[SIGNATURE]}
    extensions = change.get("extensions", {CALLER: "ann"}) | signature
    forged = event.model_copy(update={**change, "extensions": extensions})
    assert (await send(client, forged)).status_code == 401
    assert not engine.tasks


@pytest.mark.parametrize("headers", [BEARER, BASIC], ids=["bearer", "basic"])
async def test_a_delivery_with_the_token_proves_its_events(
    start: Start, engine: ScriptedEngine, headers: dict[str, str]
) -> None:
    model, client = await start(locked())
    engine.enqueue("moon")
    assert reply(await send(client, requested(extensions={CALLER: "ann"}), headers)).type == COMPLETED
    assert model.callers == ["ann"]


@pytest.mark.parametrize("access", [None, locked(events_open=True)], ids=["no token here", "open"])
async def test_an_event_that_is_taken_without_proof_belongs_to_events(
    start: Start, engine: ScriptedEngine, access: Access | None
) -> None:
    model, client = await start(access)
    engine.enqueue("moon")
    answered = reply(await send(client, requested(extensions={CALLER: "ann"})))
    assert model.callers == [EVENTS_CALLER]
    assert CALLER not in answered.extensions


async def test_nobody_gets_the_reply_to_anothers_event(start: Start, engine: ScriptedEngine) -> None:
    """By the same source and id, which everybody who has a Trigger can see."""
    _, client = await start(locked(events_open=True))
    engine.enqueue("ann's")
    engine.enqueue("for events")
    mine = reply(await send(client, signed(requested(extensions={CALLER: "ann"}), TOKEN)))
    other = reply(await send(client, requested()))
    assert [json.loads(event.data or b"")["text"] for event in (mine, other)] == ["ann's", "for events"]


async def test_a_cancellation_works_on_its_own_callers_job_only(start: Start, engine: ScriptedEngine) -> None:
    _, client = await start(locked(events_open=True))
    engine.enqueue(asyncio.Event())
    request = asyncio.create_task(send(client, signed(requested(extensions={CALLER: "ann"}), TOKEN)))
    await eventually(lambda: engine.generations)

    def cancellation(**extensions: str) -> CloudEvent:
        return CloudEvent(id="c", source="/web", type=CANCELLED, subject="job", extensions=extensions)

    for event in (
        cancellation(),
        cancellation(**{CALLER: "ann"}),
        signed(cancellation(), TOKEN),
        signed(cancellation(**{CALLER: "bob"}), TOKEN),
    ):
        assert (await send(client, event)).status_code == 204
        assert engine.closed == [False]

    assert (await send(client, signed(cancellation(**{CALLER: "ann"}), TOKEN))).status_code == 204
    assert reply(await request).type == FAILED
    assert engine.closed == [True]
