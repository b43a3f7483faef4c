"""The OpenAI routes as server-sent events."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from unittest import mock

import httpx2
import pytest

from contract import problems
from contract.openai.text_documents import CompletionDocuments
from contract.problems import ProblemError
from predictor.engine.events import EngineEvent, Started, TextFinished, Token
from predictor.engine.generation import Generation
from predictor.protocols.openai.text import text_frames
from tests.support.waiting import eventually
from wire.request_context import WHOLE_HEADER

CHAT = ("/openai/v1/chat/completions", {"model": "poet", "messages": [{"role": "user", "content": "moon"}]})
COMPLETION = ("/openai/v1/completions", {"model": "poet", "prompt": "moon"})
BOTH = pytest.mark.parametrize(("path", "body"), [CHAT, COMPLETION])


async def stream(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of every event, less the members that differ from run to run."""
    async with client.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        text = (await answer.aread()).decode()
    assert text.endswith("\n\n")
    documents = []
    ids = set()
    for event in text[:-2].split("\n\n"):
        assert event.startswith("data: ")
        data = event.removeprefix("data: ")
        document = data if data == "[DONE]" else json.loads(data)
        if isinstance(document, dict) and "id" in document:
            ids.add((document.pop("id"), document.pop("created")))
        documents.append(document)
    assert len(ids) <= 1, "every chunk of a stream has the same id"
    return documents


def chat_chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {"object": "chat.completion.chunk", "model": "poet", "choices": [choice]}


def text_chunk(text: str, reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    return {"object": "text_completion", "model": "poet", "choices": [choice]}


@BOTH
@pytest.mark.parametrize("live", [True, False], ids=["SSE", "JSON"])
async def test_an_answer_names_what_decided_it(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any], live: bool
) -> None:
    """As OpenAI does; an engine that does not know leaves it out, as in the other tests."""
    engine.enqueue("a", "b")
    with mock.patch.object(type(engine), "fingerprint", "fp_1"):
        documents = await stream(client, path, body) if live else [(await client.post(path, json=body)).json()]
    assert {document["system_fingerprint"] for document in documents if document != "[DONE]"} == {"fp_1"}


async def test_a_chat_stream_is_role_pieces_reason_done(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("床前", "明月光\n")

    assert await stream(client, *CHAT) == [
        chat_chunk({"role": "assistant", "content": ""}),
        chat_chunk({"content": "床前"}),
        chat_chunk({"content": "明月光\n"}),
        chat_chunk({}, "stop"),
        "[DONE]",
    ]


async def test_a_completion_stream_is_pieces_reason_done(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("light", " on", finish_reason="length")

    assert await stream(client, *COMPLETION) == [
        text_chunk(""),
        text_chunk("light"),
        text_chunk(" on"),
        text_chunk("", "length"),
        "[DONE]",
    ]


async def test_several_prompts_stream_side_by_side(client: httpx2.AsyncClient, engine: Any) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    engine.enqueue("a", first, "b", prompt_tokens=1, completion_tokens=2)
    engine.enqueue("c", second, "d", prompt_tokens=3, completion_tokens=4)
    path, body = COMPLETION
    chunks = []

    async with client.stream(
        "POST", path, json=body | {"prompt": ["x", "y"], "stream": True, "stream_options": {"include_usage": True}}
    ) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunks.append(json.loads(line.removeprefix("data: ")))
            if len(chunks) == 4:  # each has begun and said its first word
                second.set()
            for choice in chunks[-1]["choices"]:
                if choice["finish_reason"]:
                    first.set()

    said = [(one["index"], one["text"], one["finish_reason"]) for chunk in chunks for one in chunk["choices"]]
    assert sorted(said[:4]) == [(0, "", None), (0, "a", None), (1, "", None), (1, "c", None)]
    assert said[4:] == [(1, "d", None), (1, "", "stop"), (0, "b", None), (0, "", "stop")]
    assert chunks[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_one_failure_ends_the_stream_of_several_prompts(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("a", asyncio.Event())
    engine.enqueue(ProblemError(problems.INTERNAL, "The model failed on this request."))
    path, body = COMPLETION

    *_, last = await stream(client, path, body | {"prompt": ["x", "y"]})

    assert last["error"]["message"] == "The model failed on this request."
    await eventually(lambda: engine.closed == [True, True])


@BOTH
async def test_usage_comes_before_done_when_it_is_asked_for(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    engine.enqueue("x", prompt_tokens=5, completion_tokens=7)

    *_, totals, done = await stream(client, path, body | {"stream_options": {"include_usage": True}})

    assert done == "[DONE]"
    assert totals["choices"] == []
    assert totals["usage"] == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    assert totals["timing"] == {"queue_s": 0.25}


@BOTH
async def test_a_text_of_nothing_is_a_whole_stream_too(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    engine.enqueue()

    assert len(await stream(client, path, body)) == 3


@BOTH
async def test_what_fails_before_the_first_event_has_a_status(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    engine.refuse(ProblemError(problems.OVERLOADED, "full", retry_after=2))

    answer = await client.post(path, json=body | {"stream": True})

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == "overloaded"


@BOTH
async def test_what_fails_in_the_middle_is_the_last_event_and_no_done_follows(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    engine.enqueue("half", ProblemError(problems.INTERNAL, "The model failed on this request."))

    first, piece, last = await stream(client, path, body)

    assert first["choices"]
    assert piece["choices"]
    assert last["type"] == "urn:shangcai:problem:internal"
    assert last["status"] == 500
    assert last["error"]["message"] == "The model failed on this request."


@BOTH
async def test_pieces_are_sent_as_they_come(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    gate = asyncio.Event()
    engine.enqueue("early", gate, "late")

    async with client.stream("POST", path, json=body | {"stream": True}) as answer:
        lines = answer.aiter_lines()
        while "early" not in await anext(lines):
            pass
        assert not gate.is_set()
        gate.set()
        rest = [line async for line in lines]

    assert any("late" in line for line in rest)
    assert rest[-2:] == ["data: [DONE]", ""]


async def test_awkward_text_survives_the_framing(client: httpx2.AsyncClient, engine: Any) -> None:
    awkward = 'a\nb\r\nc\rdata: x\n\nevent: y\u2028\u2029\x85\0\U0001f319"\\'
    engine.enqueue(awkward)

    _, piece, *_ = await stream(client, *CHAT)

    assert piece["choices"][0]["delta"]["content"] == awkward


async def test_several_begin_in_their_order() -> None:
    """OpenAI's client for Python numbers them as it hears of them."""
    first, second = Generation(), Generation()
    frames = text_frames([first, second], CompletionDocuments("1", "poet", None), with_usage=False, path=COMPLETION[0])
    events: list[EngineEvent] = [Started(0.0), Token("a"), TextFinished("stop", 1, 1)]
    for event in events:
        second.publish(event)
    sent = await anext(frames)
    for event in events:
        first.publish(event)
    sent += b"".join([frame async for frame in frames])
    told = [json.loads(line)["choices"][0] for line in re.findall(rb"data: ({.*)", sent)]
    assert [one["index"] for one in told[:2]] == [0, 1]
    assert sorted((one["index"], one["text"]) for one in told) == [
        (0, ""),
        (0, ""),
        (0, "a"),
        (1, ""),
        (1, ""),
        (1, "a"),
    ]


async def test_what_is_there_already_is_sent_together() -> None:
    """And nothing waits for what is not there."""
    generation = Generation()
    frames = text_frames([generation], CompletionDocuments("1", "poet", None), with_usage=True, path=COMPLETION[0])
    sent = []
    steps: list[list[EngineEvent]] = [
        [Started(0.0), Token("a")],
        [Token("b")],
        [Token("c"), TextFinished("stop", 1, 3)],
    ]
    for events in steps:
        for event in events:
            generation.publish(event)
        sent.append((await anext(frames)).count(b"data: "))
    assert sent == [2, 1, 4]  # the last with the reason, the totals and [DONE]
    assert [frame async for frame in frames] == []


async def test_a_whole_text_comes_in_two() -> None:
    """Its first piece, by which it is told how long that took, and all else with its end."""
    generation = Generation()
    documents = CompletionDocuments("1", "poet", None)
    frames = text_frames([generation], documents, with_usage=True, path=COMPLETION[0], whole=True)
    first = asyncio.ensure_future(anext(frames))
    generation.publish(Started(0.0))
    await asyncio.sleep(0)
    assert not first.done()
    generation.publish(Token("a"))
    assert (await first).count(b"data: ") == 2
    rest = asyncio.ensure_future(anext(frames))
    later: list[EngineEvent] = [Token("b"), Token("c"), TextFinished("stop", 1, 3)]
    for event in later:
        await asyncio.sleep(0)
        assert not rest.done()
        generation.publish(event)
    assert (await rest).count(b"data: ") == 5
    assert [frame async for frame in frames] == []


@pytest.mark.parametrize("whole", [True, False])
async def test_who_wants_a_text_whole_says_so(client: httpx2.AsyncClient, engine: Any, whole: bool) -> None:
    engine.enqueue("a")
    path, body = CHAT
    with mock.patch("predictor.protocols.openai.text.text_frames", wraps=text_frames) as frames:
        await client.post(path, json=body | {"stream": True}, headers={WHOLE_HEADER: "1"} if whole else {})
    assert frames.call_args.kwargs["whole"] == whole
