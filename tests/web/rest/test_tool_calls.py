"""Functions that a text calls: asked for as they came, and told in streams and results, whatever dies on the way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.waiting import eventually
from web.app import create_app
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Stream = Callable[..., bytes]
Events = Callable[[str], list[tuple[str, Any]]]
Slug = Callable[[httpx2.Response], str]
Dying = Callable[..., Any]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]

TRIP = {
    "type": "function",
    "function": {
        "name": "Trip",
        "description": "A trip.",
        "parameters": {
            "properties": {"city": {"default": None, "type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "type": "object",
        },
        "strict": True,
    },
}
ASKED = {
    "messages": [{"role": "user", "content": "杭州三天"}],
    "tools": [TRIP],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}
"""What LangChain sends for `bind_tools([Trip], tool_choice="any", parallel_tool_calls=False, strict=True)`."""


def begin(name: str, arguments: str = "", index: int = 0, id: str | None = "call_1") -> dict[str, Any]:
    """The first piece of a call, as our predictor and vLLM send it."""
    function = {"name": name, "arguments": arguments}
    return {"index": index, "function": function} | ({} if id is None else {"id": id, "type": "function"})


def more(arguments: str, index: int = 0) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


CALLS = (begin("Trip", '{"city": "杭'), more('州", "days"'), more(": 3}"))
SECOND = (begin("Trip", '{"city":', 1, "call_2"), more(' "苏州", "days": 1}', 1))
ARGUMENTS = ['{"city": "杭州", "days": 3}', '{"city": "苏州", "days": 1}']


@pytest.fixture
def whole(stream: Stream) -> bytes:
    return stream(calls=CALLS + SECOND, finish_reason="tool_calls", fingerprint="fp_1")


def calls_of(found: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The calls that a stream's events make, in the result's shape."""
    made: list[dict[str, Any]] = []
    for name, data in found:
        if name == "tool_call":
            if data["index"] == len(made):
                made.append({"id": data["id"], "type": "function", "function": {"name": data["name"], "arguments": ""}})
            else:
                assert not data.keys() & {"id", "name"}
            made[data["index"]]["function"]["arguments"] += data["arguments"]
    return made


def expected(*ids: str) -> list[dict[str, Any]]:
    return [
        {"id": id, "type": "function", "function": {"name": "Trip", "arguments": arguments}}
        for id, arguments in zip(ids, ARGUMENTS, strict=False)
    ]


async def test_the_model_server_is_asked_as_web_was(web: Web, dying: Dying, whole: bytes) -> None:
    server = dying(whole)
    await web(server).post("/generate", json=ASKED)

    body = json.loads(server.asked[0].content)
    assert {name: body[name] for name in ASKED} == ASKED
    assert server.asked[0].url.path.endswith("/chat/completions")


async def test_a_result_has_its_calls(web: Web, dying: Dying, whole: bytes) -> None:
    result = (await web(dying(whole)).post("/generate", json=ASKED)).json()

    assert (result["text"], result["finish_reason"]) == ("", "tool_calls")
    assert result["tool_calls"] == expected("call_1", "call_2")


async def test_a_text_that_calls_nothing_has_none(web: Web, dying: Dying, stream: Stream) -> None:
    result = (await web(dying(stream("x"))).post("/generate", json=ASKED)).json()

    assert "tool_calls" not in result


async def test_a_stream_has_pieces_of_calls(web: Web, dying: Dying, events: Events, stream: Stream) -> None:
    answer = stream("Hm.", calls=CALLS + SECOND, finish_reason="tool_calls")
    found = events((await web(dying(answer)).post("/generate", json=ASKED | {"stream": True})).text)

    assert [name for name, _ in found if name != "status"] == ["token"] + ["tool_call"] * 5 + ["result"]
    assert calls_of(found) == found[-1][1]["tool_calls"] == expected("call_1", "call_2")
    assert found[-1][1]["timing"]["first_token_s"] > 0


async def test_a_named_function_that_ends_with_stop(web: Web, dying: Dying, stream: Stream) -> None:
    """OpenAI's and vLLM's way."""
    result = (await web(dying(stream(calls=CALLS, finish_reason="stop"))).post("/generate", json=ASKED)).json()

    assert result["finish_reason"] == "tool_calls"


async def test_a_call_that_is_cut_says_so(web: Web, dying: Dying, stream: Stream) -> None:
    result = (await web(dying(stream(calls=CALLS[:1], finish_reason="length"))).post("/generate", json=ASKED)).json()

    assert (result["finish_reason"], result["tool_calls"][0]["function"]["arguments"]) == ("length", '{"city": "杭')


async def test_a_server_that_gives_no_ids(web: Web, dying: Dying, stream: Stream, events: Events) -> None:
    answer = stream(calls=(begin("Trip", "{}", id=None), begin("Trip", "{}", 1, id=None)), finish_reason="tool_calls")
    found = events((await web(dying(answer)).post("/generate", json=ASKED | {"stream": True})).text)

    ids = [call["id"] for call in found[-1][1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert calls_of(found) == found[-1][1]["tool_calls"]


@pytest.mark.parametrize(
    "calls",
    [
        (more("{}"),),
        (begin("Trip", "{}", 1),),
        (begin("", "{}"),),
        (begin("Trip", "{}", -1),),
        (begin("Trip", "{}", 128),),
    ],
    ids=["no name", "not the first", "an empty name", "below none", "too many"],
)
async def test_calls_that_cannot_be_right(
    web: Web, dying: Dying, stream: Stream, slug: Slug, calls: tuple[dict[str, Any], ...]
) -> None:
    answer = stream(calls=calls, finish_reason="tool_calls")
    assert slug(await web(dying(answer)).post("/generate", json=ASKED)) == "bad-upstream"


# A model server that dies

END = '}, "finish_reason": null}], "system_fingerprint": "fp_1"}\n\n'
MARKS = {
    "before the calls": '"content": ""' + END,
    "after a first piece": '"call_1", "type": "function"}]' + END,
    "within a call": 'days\\""}}]' + END,
    "between calls": ': 3}"}}]' + END,
    "before the end": 'days\\": 1}"}}]' + END,
}


def until(whole: bytes, mark: str) -> tuple[bytes, Exception]:
    end = whole.index(mark.encode()) + len(mark.encode())
    return whole[:end], httpx2.ReadError("reset")


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
@pytest.mark.parametrize("live", [False, True], ids=["JSON", "SSE"])
async def test_calls_go_on_and_keep_their_ids(
    web: Web, dying: Dying, events: Events, stream: Stream, whole: bytes, mark: str, live: bool
) -> None:
    """The second answer has other ids, as vLLM's would, and cuts its pieces in other places."""
    again: tuple[dict[str, Any], ...]
    again = (begin("Trip", ARGUMENTS[0][:5], 0, "other_1"), more(ARGUMENTS[0][5:]), begin("Trip", "", 1, "other_2"))
    again = (*again, more(ARGUMENTS[1], 1))
    second = stream(calls=again, finish_reason="tool_calls", fingerprint="fp_1")
    server = dying(until(whole, mark), second)
    response = await web(server).post("/generate", json=ASKED | {"stream": live})

    result = response.json() if not live else events(response.text)[-1][1]
    ids = [call["id"] for call in result["tool_calls"]]
    assert result["tool_calls"] == expected(*ids)
    kept = 0 if mark == MARKS["before the calls"] else 2 if mark == MARKS["before the end"] else 1
    assert ids == ["call_1", "call_2"][:kept] + ["other_1", "other_2"][kept:]
    assert len(server.asked) == 2
    if live:
        assert calls_of(events(response.text)) == result["tool_calls"]


@pytest.mark.parametrize(
    "other",
    [
        (begin("Tour", '{"city": "杭州", "days": 3}'),),
        (begin("Trip", '{"city": "苏州", "days": 3}'),),
        (begin("Trip", "{}"),),
        (),
    ],
    ids=["another name", "other arguments", "shorter", "none"],
)
async def test_another_call_is_no_continuation(
    web: Web, dying: Dying, events: Events, stream: Stream, whole: bytes, other: tuple[dict[str, Any], ...]
) -> None:
    second = stream(
        "" if other else "x", calls=other, finish_reason="tool_calls" if other else "stop", fingerprint="fp_1"
    )
    server = dying(until(whole, MARKS["within a call"]), second)
    found = events((await web(server).post("/generate", json=ASKED | {"stream": True})).text)

    assert found[-1][0] == "error"
    assert found[-1][1]["type"].endswith("diverged")


async def test_a_job_keeps_its_calls(opened: Opened, dying: Dying, events: Events, whole: bytes) -> None:
    server = dying(until(whole, MARKS["within a call"]), whole)
    client = await opened(create_app(Settings(models={"poet": "http://poet.test"}), httpx2.MockTransport(server)))
    location = (await client.post("/generate", json=ASKED, headers={"Prefer": "respond-async"})).headers["location"]

    async def ended() -> bool:
        return bool((await client.get(location)).json()["state"] == "completed")

    await eventually(ended)
    found = events((await client.get(location, headers={"Accept": "text/event-stream"})).text)
    assert calls_of(found) == found[-1][1]["tool_calls"] == expected("call_1", "call_2")
    assert (await client.get(location)).json()["result"]["tool_calls"] == expected("call_1", "call_2")
