"""Errors over gRPC: the right status, one line in the log, and a traceback only for what nobody has foreseen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

from contract.limits import BODY_BYTES
from predictor.server.data_plane import ModelDataPlane
from predictor.server.grpc_server import start_grpc_server
from tests.support.processes import free_port

SERVICE = "/inference.GRPCInferenceService"
TENSOR = messages.ModelInferRequest.InferInputTensor
PROMPT = TENSOR(
    name="prompt", datatype="BYTES", shape=[1], contents=messages.InferTensorContents(bytes_contents=[b"moon"])
)


@pytest.fixture
async def channel(server: Any) -> AsyncIterator[grpc.aio.Channel]:
    port = free_port()
    data_plane = ModelDataPlane(server.model, server.server.registered_models)
    grpc_server = await start_grpc_server("127.0.0.1", port, data_plane, threads=1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await grpc_server.stop(None)


async def status(channel: grpc.aio.Channel, method: str, message: bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(f"{SERVICE}/{method}")(message)
    return refused.value.code(), refused.value.details()


def infer(**fields: Any) -> bytes:
    request = messages.ModelInferRequest(**{"model_name": "poet", "inputs": [PROMPT], **fields})
    return bytes(request.SerializeToString())


@pytest.mark.parametrize(
    ("method", "message", "code", "detail"),
    [
        ("ModelInfer", infer(model_name="cook"), grpc.StatusCode.NOT_FOUND, "Model with name cook does not exist."),
        ("ModelReady", b"\x0a\x04cook", grpc.StatusCode.NOT_FOUND, "Model with name cook does not exist."),
        ("ModelMetadata", b"\x0a\x04cook", grpc.StatusCode.NOT_FOUND, "Model with name cook does not exist."),
        ("RepositoryModelLoad", b"", grpc.StatusCode.UNIMPLEMENTED, "This server loads its one model when it starts."),
        ("RepositoryModelUnload", b"", grpc.StatusCode.UNIMPLEMENTED, "This server keeps its one model"),
        ("ModelInfer", infer(raw_input_contents=[b"x"]), grpc.StatusCode.INVALID_ARGUMENT, "contents field must not"),
        (
            "ModelInfer",
            infer(inputs=[TENSOR(name="prompt", datatype="FOO", shape=[1])], raw_input_contents=[b"x"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid content type",
        ),
        ("ModelInfer", b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "Error parsing message"),
        ("Nope", b"", grpc.StatusCode.UNIMPLEMENTED, "Method not found"),
    ],
    ids=["model", "ready", "metadata", "load", "unload", "contents", "type", "no message", "method"],
)
async def test_a_mistake_of_a_client(
    channel: grpc.aio.Channel,
    caplog: pytest.LogCaptureFixture,
    method: str,
    message: bytes,
    code: grpc.StatusCode,
    detail: str,
) -> None:
    given, text = await status(channel, method, message)

    assert given == code
    assert text.startswith(detail)
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


async def test_a_message_over_the_limit_of_a_body_is_refused(channel: grpc.aio.Channel, engine: Any) -> None:
    given, _ = await status(channel, "ModelInfer", b" " * (BODY_BYTES + 1))
    assert given == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not engine.tasks


async def test_a_mistake_of_the_server(
    channel: grpc.aio.Channel, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine.refuse(RuntimeError("boom"))

    given, text = await status(channel, "ModelInfer", infer())

    assert given == grpc.StatusCode.INTERNAL
    assert "boom" not in text
    assert "boom" in caplog.text
