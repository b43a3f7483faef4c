"""After SIGTERM, what came over gRPC is finished like everything else."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest

pytestmark = pytest.mark.slow

SLOWLY = (
    "-c",
    "import runpy, time; import predictor.text.output.text_output as w; put = w.TextOutput.put; "
    "w.TextOutput.put = lambda self, token: (time.sleep(0.02), put(self, token))[1]; "
    "runpy.run_module('predictor', run_name='__main__')",
)


async def test_running_and_waiting_grpc_requests_are_answered_after_sigterm(start_predictor: Any) -> None:
    predictor = start_predictor(grpc=True, script=SLOWLY)
    await asyncio.to_thread(predictor.wait_ready)
    tensor = InferInput("prompt", [1], "BYTES", data=["moon"])
    request = InferRequest("tiny", [tensor], parameters={"max_tokens": 100, "temperature": "0"})
    clients = [InferenceGRPCClient(f"127.0.0.1:{predictor.grpc_port}", timeout=60, retries=0) for _ in range(2)]
    calls = [asyncio.create_task(client.infer(request)) for client in clients]
    await asyncio.to_thread(predictor.wait_for, lambda: predictor.log().count("ModelInfer") == 2, "two requests")

    assert await asyncio.to_thread(predictor.end, signal.SIGTERM) == 0

    for answer in await asyncio.gather(*calls):
        tokens = next(output for output in answer.outputs if output.name == "completion_tokens")
        assert tokens.data == [100]
    for client in clients:
        await client.close()
