"""Other people's client libraries talk to a real predictor: OpenAI's and KServe's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx  # as KServe's client
import openai
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

pytestmark = pytest.mark.slow

MESSAGES: list[Any] = [{"role": "user", "content": "moon"}]


@pytest.fixture
def openai_client(tiny_predictor: Any) -> Iterator[openai.OpenAI]:
    url = f"{tiny_predictor.url}/openai/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_openai_client(tiny_predictor: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{tiny_predictor.url}/openai/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_openai_lists_the_model(openai_client: openai.OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["tiny"]
    assert openai_client.models.retrieve("tiny").id == "tiny"


def test_openai_chats(openai_client: openai.OpenAI) -> None:
    whole = openai_client.chat.completions.create(
        model="tiny", messages=MESSAGES, seed=1, max_completion_tokens=20, temperature=1
    )
    chunks = list(
        openai_client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            seed=1,
            max_tokens=20,
            temperature=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    text = whole.choices[0].message.content
    assert text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage is not None
    assert chunks[-1].usage == whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_openai_completes(openai_client: openai.OpenAI) -> None:
    whole = openai_client.completions.create(model="tiny", prompt="moon", temperature=0, max_tokens=5)
    pieces = openai_client.completions.create(model="tiny", prompt="moon", temperature=0, max_tokens=5, stream=True)

    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert whole.choices[0].finish_reason == "length"


def test_openai_completes_several_prompts(openai_client: openai.OpenAI) -> None:
    create: Any = openai_client.completions.create
    prompts = ["moon", "sun"]
    alone = [create(model="tiny", prompt=prompt, temperature=0, max_tokens=5).choices[0].text for prompt in prompts]

    together = create(model="tiny", prompt=prompts, temperature=0, max_tokens=5)
    streamed = {0: "", 1: ""}
    for chunk in create(model="tiny", prompt=prompts, temperature=0, max_tokens=5, stream=True):
        [choice] = chunk.choices
        streamed[choice.index] += choice.text

    assert [choice.text for choice in together.choices] == alone
    assert list(streamed.values()) == alone
    assert together.usage.completion_tokens == 10


def test_openai_goes_on_with_its_answers(openai_client: openai.OpenAI) -> None:
    messages: list[Any] = list(MESSAGES)
    for _ in range(3):
        answer = openai_client.chat.completions.create(model="tiny", messages=messages, max_tokens=5)
        messages += [answer.choices[0].message, *MESSAGES]

    assert len(messages) == 7


async def test_openai_chats_asynchronously(async_openai_client: openai.AsyncOpenAI) -> None:
    completions = async_openai_client.chat.completions
    whole = await completions.create(model="tiny", messages=MESSAGES, seed=2, max_tokens=20)
    stream = await completions.create(model="tiny", messages=MESSAGES, seed=2, max_tokens=20, stream=True)

    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content


async def test_openai_leaves_a_stream_and_the_next_is_served(async_openai_client: openai.AsyncOpenAI) -> None:
    completions = async_openai_client.chat.completions
    for _ in range(20):
        stream = await completions.create(model="tiny", messages=MESSAGES, max_tokens=240, temperature=0, stream=True)
        await anext(aiter(stream))
        await stream.close()

    answer = await completions.create(model="tiny", messages=MESSAGES, max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize("stream", [False, True])
def test_openai_errors_have_their_classes(openai_client: openai.OpenAI, stream: bool) -> None:
    create: Any = openai_client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="max_tokens") as refused:
        create(model="tiny", messages=MESSAGES, max_tokens=0, stream=stream)
    assert (refused.value.param, refused.value.code) == ("max_tokens", "invalid-field")
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="'cook'"):
        create(model="cook", messages=MESSAGES, stream=stream)
    with pytest.raises(openai.BadRequestError, match="context"):
        create(model="tiny", messages=[{"role": "user", "content": "x" * 32_768}], stream=stream)
    with pytest.raises(openai.NotFoundError):
        openai_client.embeddings.create(model="tiny", input="moon")


@pytest.fixture
async def kserve_v1(tiny_predictor: Any) -> AsyncIterator[InferenceRESTClient]:
    client = InferenceRESTClient(RESTConfig(protocol="v1", retries=0, timeout=60))
    yield client
    await client.close()


@pytest.fixture
async def kserve_v2(tiny_predictor: Any) -> AsyncIterator[InferenceRESTClient]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=60))
    yield client
    await client.close()


async def test_kserve_v1_predicts(tiny_predictor: Any, kserve_v1: InferenceRESTClient) -> None:
    body = {"instances": [{"prompt": "moon", "seed": 1, "max_tokens": 5, "temperature": 0}]}

    answer = await kserve_v1.infer(tiny_predictor.url, body, model_name="tiny")

    [prediction] = answer["predictions"]
    assert prediction["usage"]["completion_tokens"] == 5
    assert await kserve_v1.is_model_ready(tiny_predictor.url, "tiny")


async def test_kserve_v1_is_told_what_is_wrong(tiny_predictor: Any, kserve_v1: InferenceRESTClient) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        await kserve_v1.infer(tiny_predictor.url, {"instances": []}, model_name="tiny")
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await kserve_v1.infer(tiny_predictor.url, {"instances": []}, model_name="cook")


def infer_request(*prompts: str, model: str = "tiny", binary: bool = False, **parameters: Any) -> InferRequest:
    import numpy

    tensor = InferInput("prompt", [len(prompts)], "BYTES")
    if binary:
        tensor.set_data_from_numpy(numpy.array([text.encode() for text in prompts], dtype=object), binary_data=True)
    else:
        tensor.data = list(prompts)
    return InferRequest(model, [tensor], parameters=parameters)


@pytest.mark.parametrize("binary", [False, True])
async def test_kserve_v2_infers(tiny_predictor: Any, kserve_v2: InferenceRESTClient, binary: bool) -> None:
    request = infer_request("moon", "床前", binary=binary, max_tokens=5, temperature=0)

    answer = await kserve_v2.infer(tiny_predictor.url, request, model_name="tiny")

    outputs = {output.name: output.data for output in answer.outputs}
    assert outputs["completion_tokens"] == [5, 5]
    assert len(outputs["text"]) == 2


async def test_kserve_v2_probes(tiny_predictor: Any, kserve_v2: InferenceRESTClient) -> None:
    assert await kserve_v2.is_server_live(tiny_predictor.url)
    assert await kserve_v2.is_server_ready(tiny_predictor.url)
    assert await kserve_v2.is_model_ready(tiny_predictor.url, "tiny")


@pytest.fixture
async def kserve_grpc(tiny_predictor: Any) -> AsyncIterator[InferenceGRPCClient]:
    client = InferenceGRPCClient(f"127.0.0.1:{tiny_predictor.grpc_port}", timeout=60, retries=0)
    yield client
    await client.close()


async def test_kserve_grpc_probes(kserve_grpc: InferenceGRPCClient) -> None:
    assert await kserve_grpc.is_server_live()
    assert await kserve_grpc.is_server_ready()
    assert await kserve_grpc.is_model_ready("tiny")


@pytest.mark.parametrize("binary", [False, True])
async def test_kserve_grpc_infers(kserve_grpc: InferenceGRPCClient, binary: bool) -> None:
    answer = await kserve_grpc.infer(infer_request("moon", "床前", binary=binary, max_tokens=5, temperature="0"))

    outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    assert outputs["completion_tokens"] == [5, 5]
    assert outputs["finish_reason"] in (["length"] * 2, [b"length"] * 2)


async def test_kserve_grpc_is_told_what_is_wrong(kserve_grpc: InferenceGRPCClient) -> None:
    async def code(request: InferRequest) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as refused:
            await kserve_grpc.infer(request)
        return refused.value.code(), refused.value.details()

    assert await code(infer_request("moon", model="cook")) == (
        grpc.StatusCode.NOT_FOUND,
        "Model with name cook does not exist.",
    )
    status, detail = await code(infer_request("moon", max_tokens=0))
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert detail.startswith("max_tokens: ")
    status, detail = await code(infer_request("x" * 300))
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert "context" in detail
    status, _ = await code(infer_request())
    assert status == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_grpc_client_that_leaves_frees_its_slot(tiny_predictor: Any, kserve_grpc: InferenceGRPCClient) -> None:
    for _ in range(70):  # more than may wait
        call = asyncio.create_task(kserve_grpc.infer(infer_request("moon", max_tokens=240, temperature="0")))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})

    assert await kserve_grpc.infer(infer_request("moon", max_tokens=1))
