"""Streams of responses: OpenAI's events, their numbers, and coming back for the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest

from tests.support.waiting import SECONDS, eventually
from tests.support.web.dying_server import DyingServer
from tests.support.web.job_requests import Poet

Client = Callable[..., Awaitable[openai.AsyncOpenAI]]

TYPES = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_text.delta",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def events_of(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_the_events_of_a_response(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    poet.finish.set()
    asked = await client(**store)
    events = await events_of(await asked.responses.create(model="poet", input="moon", stream=True))
    assert [event.type for event in events] == TYPES
    assert [event.sequence_number for event in events] == list(range(len(TYPES)))
    assert [event.delta for event in events if event.type.endswith(".delta")] == ["Hm", "m.", "春", "天"]
    assert [event.item.id[:3] for event in events if event.type == "response.output_item.done"] == ["rs_", "msg"]
    done = events[-1].response
    assert (done.status, done.output_text) == ("completed", "春天")
    assert [item.id for item in done.output] == [event.item.id for event in events if "item.done" in event.type]
    assert await asked.responses.retrieve(done.id) == done


async def test_the_clients_helper_puts_them_together(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client()
    async with asked.responses.stream(model="poet", input="moon") as stream:
        texts = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        response = await stream.get_final_response()
    assert texts == ["春", "春天"]
    assert response.output_text == "春天"


async def test_whoever_comes_back_gets_the_rest_with_the_same_numbers(
    client: Client, poet: Poet, store: dict[str, Any]
) -> None:
    asked = await client(**store)
    stream = await asked.responses.create(model="poet", input="moon", background=True, stream=True)
    seen: list[Any] = []
    async for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    poet.finish.set()
    response, last = seen[0].response.id, seen[-1].sequence_number
    rest = await events_of(await asked.responses.retrieve(response, stream=True, starting_after=last))
    assert rest[0].sequence_number == last + 1
    assert "".join(event.delta for event in [*seen, *rest] if event.type == "response.output_text.delta") == "春天"
    assert rest[-1].type == "response.completed"
    again = await events_of(await asked.responses.retrieve(response, stream=True))
    assert again == [*seen, *rest]
    last = again[-1].sequence_number
    assert await events_of(await asked.responses.retrieve(response, stream=True, starting_after=last)) == []
    with pytest.raises(openai.BadRequestError, match=f"the last event of this response has the number {last}") as error:
        await asked.responses.retrieve(response, stream=True, starting_after=last + 1)
    assert error.value.param == "starting_after"


async def test_a_background_response_is_followed_by_the_clients_helper(client: Client, poet: Poet) -> None:
    asked = await client()
    response = await asked.responses.create(model="poet", input="moon", background=True)
    poet.finish.set()
    async with asked.responses.stream(response_id=response.id) as stream:
        assert (await stream.get_final_response()).output_text == "春天"


async def test_while_it_waits_comments_say_what_for(client: Client, poet: Poet) -> None:
    overloaded = {"type": "urn:shangcai:problem:loading", "title": "t", "status": 503, "detail": "loading the weights"}
    poet.refusal = httpx2.Response(503, json=overloaded, headers={"Content-Type": "application/problem+json"})
    asked = await client()
    body = {"model": "poet", "input": "moon", "stream": True}
    lines: list[str] = []
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=SECONDS) as http,
        http.stream("POST", f"{asked.base_url}responses", json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            lines.append(line)
            if line.startswith(": {"):
                break
    assert lines[0] == "event: response.created"
    assert json.loads(lines[-1][2:])["state"] in ("queued", "waking")


async def test_a_cancelled_one_ends_its_stream(client: Client, poet: Poet, store: dict[str, Any]) -> None:
    asked = await client(**store)
    response = await asked.responses.create(model="poet", input="moon", background=True)
    following = asyncio.ensure_future(events_of(await asked.responses.retrieve(response.id, stream=True)))
    await eventually(lambda: poet.asked, "the model server is asked")
    cancelled = await asked.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    last = (await following)[-1]
    assert (last.type, last.response.status) == ("response.failed", "cancelled")
    assert (await asked.responses.cancel(response.id)).status == "cancelled"


@pytest.mark.parametrize("query", ["stream=maybe", "stream=true&starting_after=x", "starting_after=-1"])
async def test_a_query_that_cannot_be_read(client: Client, poet: Poet, query: str) -> None:
    poet.finish.set()
    asked = await client()
    response = await asked.responses.create(model="poet", input="moon")
    with pytest.raises(openai.BadRequestError):
        await asked.get(f"/responses/{response.id}?{query}", cast_to=httpx2.Response)


async def test_with_events_as_the_way_to_the_predictor_nothing_is_missing(client: Client) -> None:
    """Nothing is told on the way here: a response still has all of its events in the end."""
    sent: list[httpx2.Request] = []

    def sink(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(202)

    asked = await client(sink, dispatch="events", k_sink="http://sink.test")
    response = await asked.responses.create(model="poet", input="moon", background=True)
    await eventually(lambda: sent, "the request is sent")
    job = response.id.removeprefix("resp_")
    result = {
        "id": job,
        "model": "poet",
        "kind": "text",
        "text": "春天",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "timing": {"queue_s": None, "first_token_s": 0.1, "total_s": 0.2},
    }
    event = {
        "Ce-Specversion": "1.0",
        "Ce-Id": "1",
        "Ce-Source": "urn:predictor",
        "Ce-Type": "ai.shangcai.generation.completed.v1",
        "Ce-Subject": job,
    }
    await asked.post("../events", cast_to=httpx2.Response, body=result, options={"headers": event})
    events = await events_of(await asked.responses.retrieve(response.id, stream=True))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["春天"]
    assert events[-1].response.output_text == "春天"


def until(whole: bytes, mark: str) -> tuple[bytes, Exception]:
    """The answer up to this mark, and the end of the connection."""
    return whole[: whole.index(mark.encode())], httpx2.ReadError("reset")


@pytest.mark.parametrize("mark", ['"天"', '"finish_reason": "stop"'])
async def test_a_model_server_that_dies_is_not_seen(
    client: Client, stream: Callable[..., bytes], store: dict[str, Any], mark: str
) -> None:
    whole = stream("春", "天", fingerprint="fp_1")
    asked = await client(DyingServer([until(whole, mark), whole]), **store)
    events = await events_of(await asked.responses.create(model="poet", input="moon", background=True, stream=True))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["春", "天"]
    assert (events[-1].type, events[-1].response.output_text) == ("response.completed", "春天")
    assert await events_of(await asked.responses.retrieve(events[0].response.id, stream=True)) == events


async def test_a_generation_that_goes_another_way_is_finished_all_the_same(
    client: Client, stream: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.jobs.worker.FIRST_RETRY_SECONDS", 0.01)
    first = stream("春", "天", fingerprint="fp_1")
    dies = DyingServer([until(first, '"finish_reason": "stop"'), stream("江", "天", fingerprint="fp_2")])
    other = Poet(stream("江", "天", fingerprint="fp_2"))

    def model(request: httpx2.Request) -> httpx2.Response:
        return dies(request) if len(dies.asked) < 2 else other(request)

    asked = await client(model)
    events = await events_of(await asked.responses.create(model="poet", input="moon", stream=True))
    assert (events[-1].type, events[-1].code) == ("error", "diverged")
    other.finish.set()

    async def ended() -> Any:
        found = await asked.responses.retrieve(events[0].response.id)
        return found if found.status not in ("queued", "in_progress") else None

    found = await eventually(ended, "it has ended")
    assert (found.status, found.output_text) == ("completed", "江天")


@pytest.mark.parametrize("kept", [1, 2])
async def test_of_a_log_without_its_beginning_the_result_is_told(
    client: Client, stream: Callable[..., bytes], kept: int
) -> None:
    poet = Poet(stream("春", "天", "来"))
    poet.finish.set()
    asked = await client(poet, log_entries=kept)
    response = await asked.responses.create(model="poet", input="moon")
    for after in (0, 9, 9_999):
        events = await events_of(await asked.responses.retrieve(response.id, stream=True, starting_after=after))
        assert (events[-1].type, events[-1].response.output_text) == ("response.completed", "春天来")
        told = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert told == (["春天来"] if after == 0 else [])


async def test_of_a_log_that_begins_where_a_generation_went_on_the_result_is_told(
    client: Client, stream: Callable[..., bytes]
) -> None:
    """Its model server died, and what it had said until then is no longer there."""
    whole = stream("春", "天", "来", fingerprint="fp_1")
    asked = await client(DyingServer([until(whole, '"天"'), whole]), log_entries=4)
    response = await asked.responses.create(model="poet", input="moon")
    events = await events_of(await asked.responses.retrieve(response.id, stream=True))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["春天来"]
    for after in (0, 9, 9_999):
        events = await events_of(await asked.responses.retrieve(response.id, stream=True, starting_after=after))
        assert (events[-1].type, events[-1].response.output_text) == ("response.completed", "春天来")


async def test_how_likely_the_tokens_were(client: Client) -> None:
    likely = {"token": "天", "logprob": -0.5, "bytes": [1], "top_logprobs": []}
    chunks: list[Any] = [
        {"choices": [{"index": 0, "delta": {"content": "天"}, "logprobs": {"content": [likely]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    ]
    poet = Poet("".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks).encode())
    poet.finish.set()
    asked = await client(poet)
    include: Any = ["message.output_text.logprobs"]
    answered = await asked.responses.create(model="poet", input="x", include=include, top_logprobs=2, stream=True)
    events = await events_of(answered)
    sent = json.loads(poet.asked[0].content)
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
    [told] = [event.logprobs for event in events if event.type == "response.output_text.delta"]
    [kept] = events[-1].response.output[0].content[0].logprobs
    assert (told[0].token, told[0].logprob) == (kept.token, kept.logprob) == ("天", -0.5)


async def test_the_client_without_async(client: Client, poet: Poet) -> None:
    poet.finish.set()
    asked = await client()

    def ask() -> tuple[str, list[str]]:
        http_client: Any = httpx2.Client(trust_env=False)
        with openai.OpenAI(base_url=asked.base_url, api_key="none", http_client=http_client) as plain:
            text = plain.responses.create(model="poet", input="moon").output_text
            with plain.responses.stream(model="poet", input="moon") as stream:
                return text, [event.delta for event in stream if event.type == "response.output_text.delta"]

    assert await asyncio.to_thread(ask) == ("春天", ["春", "天"])
