"""Chat completions and plain completions, as the official client sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest

from contract import LiveEvent, TokenEvent, problems
from contract.openai.text_documents import ChatDocuments
from tests.support.waiting import SECONDS
from web.app import create_app
from web.openai.text_frames import text_frames
from web.settings import Settings

Client = Callable[..., openai.AsyncOpenAI]
Web = Callable[..., httpx2.AsyncClient]
Stream = Callable[..., bytes]
Answer = Callable[..., httpx2.Response]

USER: Any = {"role": "user", "content": "moon"}


def sent(request: httpx2.Request) -> Any:
    return json.loads(request.content)


async def test_a_chat_completion(client: Client, seen: list[httpx2.Request]) -> None:
    answer = await client().chat.completions.create(model="poet", messages=[USER])
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "poet")
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "春天", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert sent(seen[0])["messages"] == [USER]


async def test_tokens_that_were_in_the_cache_are_told(client: Client, stream: Stream, sse_answer: Answer) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    cached = client(lambda _: sse_answer(stream("春", usage=usage)))
    answer = await cached.chat.completions.create(model="poet", messages=[USER])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4


async def test_a_stream_has_the_shape_of_openais(client: Client) -> None:
    stream = await client().chat.completions.create(
        model="poet", messages=[USER], stream=True, stream_options={"include_usage": True}
    )
    first, *pieces, last, totals = [chunk async for chunk in stream]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [chunk.choices[0].delta.content for chunk in pieces] == ["春", "天"]
    assert last.choices[0].finish_reason == "stop"
    assert totals.choices == []
    assert totals.usage is not None
    assert totals.usage.total_tokens == 10
    assert len({chunk.id for chunk in (first, *pieces, last, totals)}) == 1


async def test_a_plain_completion_goes_to_the_model_as_it_is(
    client: Client, seen: list[httpx2.Request], sse_answer: Answer
) -> None:
    chunks = [
        {"choices": [{"index": 0, "text": "春", "finish_reason": None}]},
        {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    answer = await client(lambda _: sse_answer(body.encode())).completions.create(model="poet", prompt=["a", "b"], n=2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(number, "春") for number in range(4)]
    assert [request.url.path for request in seen] == ["/base/openai/v1/completions"] * 4
    assert [sent(request)["prompt"] for request in seen] == ["a", "a", "b", "b"]


async def test_n_texts_have_one_seed_after_the_other(client: Client, seen: list[httpx2.Request]) -> None:
    answer = await client().chat.completions.create(model="poet", messages=[USER], n=3, seed=2**63 - 1)
    assert [choice.message.content for choice in answer.choices] == ["春天"] * 3
    assert [sent(request)["seed"] for request in seen] == [2**63 - 1, 0, 1]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 30


async def test_the_chunks_of_several_are_told_apart(client: Client) -> None:
    stream = await client().chat.completions.create(model="poet", messages=[USER], n=2, stream=True)
    texts = {0: "", 1: ""}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "春天", 1: "春天"}


async def test_several_begin_in_their_order() -> None:
    """OpenAI's client for Python numbers them as it hears of them."""

    async def later() -> AsyncGenerator[tuple[int, LiveEvent]]:
        yield 0, TokenEvent(text="天")

    documents = ChatDocuments("1", "poet", None)
    frames = text_frames((1, TokenEvent(text="春")), later(), documents, 2, with_usage=False)
    *chunks, _done = [frame.removeprefix(b"data: ") async for frame in frames]
    assert [json.loads(chunk)["choices"][0]["index"] for chunk in chunks] == [0, 1, 1, 0]


async def test_what_is_asked_for_reaches_the_model_server(client: Client, seen: list[httpx2.Request]) -> None:
    asked: dict[str, Any] = {
        "max_completion_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.5,
        "stop": ["x"],
        "seed": 1,
        "frequency_penalty": 0.5,
        "presence_penalty": -1,
        "logit_bias": {"5": 1},
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
    }
    beyond = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "chat_template_kwargs": {"mood": "calm"}}
    await client().chat.completions.create(model="poet", messages=[USER], **asked, extra_body=beyond)
    body = sent(seen[0])
    max_tokens = asked.pop("max_completion_tokens")
    kwargs = body["chat_template_kwargs"]
    assert {name: body[name] for name in asked} == asked | {"logit_bias": {"5": 1.0}, "presence_penalty": -1.0}
    assert (body["max_tokens"], body["top_k"], body["min_p"], body["repetition_penalty"]) == (max_tokens, 3, 0.1, 1.1)
    assert kwargs == {"mood": "calm", "enable_thinking": True, "thinking": True}


async def test_a_whole_conversation_reaches_it(client: Client, seen: list[httpx2.Request]) -> None:
    turns: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "moon"}]},
        {"role": "assistant", "content": "月"},
        USER,
    ]
    await client().chat.completions.create(model="poet", messages=turns)
    assert [(turn["role"], turn["content"]) for turn in sent(seen[0])["messages"]] == [
        ("developer", "Be brief."),
        ("user", "moon"),
        ("assistant", "月"),
        ("user", "moon"),
    ]


async def test_reasoning_is_a_member_of_its_own(client: Client, stream: Stream, sse_answer: Answer) -> None:
    reasoned = stream("春", reasoning=("hm",))
    answer = await client(lambda _: sse_answer(reasoned)).chat.completions.create(model="poet", messages=[USER])
    assert answer.choices[0].message.model_extra == {"reasoning_content": "hm"}
    chunks = await client(lambda _: sse_answer(reasoned)).chat.completions.create(
        model="poet", messages=[USER], stream=True
    )
    told = [chunk.choices[0].delta.model_extra async for chunk in chunks]
    assert {"reasoning_content": "hm"} in told


async def test_what_answers_is_named_where_it_is_known(client: Client, stream: Stream, sse_answer: Answer) -> None:
    named = client(lambda _: sse_answer(stream("春", fingerprint="fp_1")))
    assert (await named.chat.completions.create(model="poet", messages=[USER])).system_fingerprint == "fp_1"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 21}, "n"),
        ({"messages": []}, "messages"),
        ({"colour": "red"}, "colour"),
        ({"audio": {}}, "audio"),
        ({"top_logprobs": 2}, "logprobs"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_mistakes_are_named_as_openai_does(web: Web, fields: dict[str, Any], param: str) -> None:
    body = {"model": "poet", "messages": [USER]} | fields
    answer = await web().post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["type"], error["code"]) == (param, "invalid_request_error", "invalid-field")
    assert param in error["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("route", "body", "upstream", "param"),
    [
        ("chat/completions", {"messages": [USER]}, "messages", "messages"),
        ("chat/completions", {"messages": [USER], "max_completion_tokens": 2}, "max_tokens", "max_completion_tokens"),
        ("chat/completions", {"messages": [USER], "max_tokens": 2}, "max_tokens", "max_tokens"),
        (
            "chat/completions",
            {"messages": [USER], "chat_template_kwargs": {"a": 1}},
            "chat_template_kwargs",
            "chat_template_kwargs",
        ),
        (
            "chat/completions",
            {"messages": [USER], "reasoning_effort": "low"},
            "chat_template_kwargs",
            "reasoning_effort",
        ),
        ("completions", {"prompt": "moon", "logprobs": 1}, "logprobs", "logprobs"),
        ("completions", {"prompt": "moon"}, "prompt", "prompt"),
    ],
)
async def test_a_field_that_the_model_server_refuses_has_the_clients_name(
    web: Web,
    refused: Callable[[str], Callable[[httpx2.Request], httpx2.Response]],
    stream: bool,
    route: str,
    body: dict[str, Any],
    upstream: str,
    param: str,
) -> None:
    answer = await web(refused(upstream)).post(f"/v1/{route}", json={"model": "poet", "stream": stream} | body)
    error = json.loads(answer.text.rpartition("data: ")[2])["error"] if stream else answer.json()["error"]
    assert (error["param"], error["message"]) == (param, f"{param}: is too long")
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("route", "body"), [("chat/completions", {"messages": [USER], "logprobs": True}), ("completions", {"prompt": "a"})]
)
async def test_a_model_that_paints_is_named(web: Web, route: str, body: dict[str, Any]) -> None:
    answer = await web().post(f"/v1/{route}", json={"model": "painter"} | body)
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["errors"]] == ["model"]


@pytest.mark.parametrize("kind", ["string", None, ["null"], {"a": 1}])
async def test_arguments_of_a_function_are_an_object(web: Web, kind: Any) -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "ab"]
    tools[1]["function"] |= {"parameters": {"type": kind}}  # type: ignore[operator]
    answer = await web().post("/v1/chat/completions", json={"model": "poet", "messages": [USER], "tools": tools})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tools.1.function.parameters"
    flat = [{"type": "function", **tool["function"]} for tool in tools]  # type: ignore[dict-item]
    answer = await web().post("/v1/responses", json={"model": "poet", "input": "moon", "tools": flat})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tools.1.parameters"


async def test_an_unknown_model_is_not_found(client: Client) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client().chat.completions.create(model="gpt", messages=[USER])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "'gpt'" in caught.value.message


async def test_a_picture_model_writes_no_texts(client: Client) -> None:
    with pytest.raises(openai.BadRequestError, match="makes pictures"):
        await client().chat.completions.create(model="painter", messages=[USER])


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/v1/nothing", "GET", 404), ("/v1/chat/completions", "GET", 405), ("/v1/models/gpt", "GET", 404)],
)
async def test_every_error_below_v1_has_openais_shape(web: Web, path: str, method: str, status: int) -> None:
    answer = await web().request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == answer.json()["detail"]
    assert answer.headers["x-request-id"]


async def test_a_body_that_is_refused_by_its_size_has_openais_shape(web: Web) -> None:
    answer = await web(body_bytes=1_000).post("/v1/chat/completions", content=b"x" * 1_001)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body-too-large")


async def test_a_failure_in_a_stream_is_raised_by_the_client(client: Client, sse_answer: Answer) -> None:
    begun = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}\n\n'
    problem = problems.ProblemError(problems.OUT_OF_MEMORY, "no room").problem.model_dump_json(exclude_none=True)
    failing = client(lambda _: sse_answer(begun + f"data: {problem}\n\n".encode()))
    stream = await failing.chat.completions.create(model="poet", messages=[USER], stream=True)
    with pytest.raises(openai.APIError, match="no room"):
        [chunk async for chunk in stream]


async def test_a_failure_before_a_stream_has_its_own_status(client: Client) -> None:
    refused = {"type": "urn:shangcai:problem:overloaded", "title": "t", "status": 503, "detail": "d", "retry_after": 7}
    full = client(lambda _: httpx2.Response(503, json=refused, headers={"Retry-After": "7"}))
    with pytest.raises(openai.InternalServerError) as caught:
        await full.chat.completions.create(model="poet", messages=[USER], stream=True)
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "7")


async def test_models_are_listed_with_their_kinds(client: Client) -> None:
    cards = [(card.id, (card.model_extra or {})["kind"]) async for card in client().models.list()]
    assert cards == [("poet", "text"), ("novelist", "text"), ("painter", "image")]
    assert (await client().models.retrieve("painter")).id == "painter"
    with pytest.raises(openai.NotFoundError):
        await client().models.retrieve("gpt")


async def test_comments_say_what_a_stream_waits_for(
    serve: Callable[..., Awaitable[str]], stream: Stream, sse_answer: Answer
) -> None:
    release = asyncio.Event()

    async def waking(request: httpx2.Request) -> httpx2.Response:
        if not release.is_set():
            loading = {"type": "urn:shangcai:problem:loading", "title": "t", "status": 503, "detail": "d"}
            return httpx2.Response(503, json=loading | {"retry_after": 1, "phase": "loading the weights"})
        if request.url.path.endswith("/chat/completions"):
            return sse_answer(stream("春"))
        return httpx2.Response(200, json={"ready": True})

    url = await serve(create_app(Settings(models={"poet": "http://poet.test"}), httpx2.MockTransport(waking)))
    body = {"model": "poet", "messages": [USER], "stream": True}
    lines: list[str] = []
    async with (
        httpx2.AsyncClient(base_url=url, timeout=SECONDS) as http_client,
        http_client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            lines.append(line)
            if '"waking"' in line:
                release.set()
    comments = [json.loads(line[1:]) for line in lines if line.startswith(":")]
    assert comments[0]["state"] == "asleep"
    assert {"state": "waking", "phase": "loading the weights"}.items() <= comments[1].items()
    assert lines[-2] == "data: [DONE]"


async def test_with_events_a_text_comes_of_a_job(
    opened: Callable[..., Awaitable[httpx2.AsyncClient]], stream: Stream
) -> None:
    from tests.support.events import Sink

    sink = Sink()
    sink.replies()
    settings = Settings(models={"poet": "http://poet.test"}, dispatch="events", k_sink="http://broker.test")
    http_client: Any = await opened(create_app(settings, httpx2.MockTransport(sink)))
    client = openai.AsyncOpenAI(base_url="http://web.test/v1", api_key="none", http_client=http_client, max_retries=0)
    answer = await client.chat.completions.create(model="poet", messages=[USER])
    assert answer.choices[0].message.content
    chunks = await client.chat.completions.create(model="poet", messages=[USER], stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert text == answer.choices[0].message.content
