"""A text whose model server dies is asked for again, and a stream goes on where its client is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from contract import ProblemError, ProblemType, problems
from tests.support.waiting import eventually
from web.app import create_app
from web.rest.resumption import MOST_BREAKS, MOST_REFUSALS
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Stream = Callable[..., bytes]
Events = Callable[[str], list[tuple[str, Any]]]
Slug = Callable[[httpx2.Response], str]
Dying = Callable[..., Any]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]

PIECES = ("床前", "明月光", "，疑是")
TEXT = "".join(PIECES)
RESET = httpx2.ReadError("reset")
JSON = {"prompt": "x"}
LIVE = {"prompt": "x", "stream": True}
FULL = ProblemError(problems.OVERLOADED, "9 requests wait", retry_after=9)


@pytest.fixture
def whole(stream: Stream) -> bytes:
    """An answer of our predictor."""
    return stream(*PIECES, fingerprint="fp_1")


def until(whole: bytes, mark: str) -> tuple[bytes, Exception]:
    """The answer up to this mark, and the end of the connection."""
    return whole[: whole.index(mark.encode()) + len(mark.encode())], RESET


def document(kind: ProblemType) -> httpx2.Response:
    error = ProblemError(kind, "Because.")
    return httpx2.Response(kind.status, json=error.document, headers=error.headers)


def told(found: list[tuple[str, Any]]) -> str:
    return "".join(data["text"] for name, data in found if name == "token")


def states(found: list[tuple[str, Any]]) -> list[str]:
    return [data["state"] if name == "status" else name for name, data in found]


def seeds(server: Any) -> set[int]:
    return {json.loads(request.content)["seed"] for request in server.asked}


STAGES: dict[str, str | None] = {
    "before it accepts": None,
    "once it has accepted": "",
    "before the first token": '"content": ""}, "finish_reason": null}], "system_fingerprint": "fp_1"}\n\n',
    "after tokens": '明月光"}, "finish_reason": null}], "system_fingerprint": "fp_1"}\n\n',
    "within a frame": '{"content": "，',
    "before the usage": '"finish_reason": "stop"}], "system_fingerprint": "fp_1"}\n\n',
    "before [DONE]": '"completion_tokens": 3}, "system_fingerprint": "fp_1"}\n\n',
}


@pytest.mark.parametrize("body", [JSON, LIVE], ids=["JSON", "SSE"])
@pytest.mark.parametrize("mark", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("clean", [False, True], ids=["reset", "closed"])
async def test_whenever_it_dies_the_text_is_whole(
    web: Web, dying: Dying, events: Events, whole: bytes, mark: str | None, body: dict[str, Any], clean: bool
) -> None:
    first: Any = httpx2.ConnectError("refused")
    if mark is not None:
        first = until(whole, mark)
        first = first[0] if clean else first
    server = dying(first, whole)
    response = await web(server).post("/generate", json=body)
    if body is LIVE:
        found = events(response.text)
        assert told(found) == TEXT
        assert [name for name, _ in found].count("error") == 0
        result = found[-1][1]
    else:
        assert response.status_code == 200, response.text
        result = response.json()
    assert (result["text"], result["finish_reason"], result["usage"]["completion_tokens"]) == (TEXT, "stop", 3)
    is_whole = clean and mark == STAGES["before [DONE]"]
    assert len(server.asked) == (1 if is_whole else 2)
    assert len(seeds(server)) == 1


async def test_an_end_after_done_is_none_of_the_text(web: Web, dying: Dying, whole: bytes) -> None:
    server = dying(until(whole, "[DONE]\n\n"), httpx2.Response(500))
    assert (await web(server).post("/generate", json=JSON)).json()["text"] == TEXT
    assert len(server.asked) == 1


async def test_the_pieces_may_be_cut_otherwise(
    web: Web, dying: Dying, events: Events, stream: Stream, whole: bytes
) -> None:
    other = stream("床", "前明", "月光，疑", "是", fingerprint="fp_1")
    server = dying(until(whole, STAGES["after tokens"] or ""), other)
    found = events((await web(server).post("/generate", json=LIVE)).text)
    assert [data["text"] for name, data in found if name == "token"] == ["床前", "明月光", "，疑", "是"]


async def test_it_may_die_again_and_further_back(
    web: Web, dying: Dying, events: Events, stream: Stream, whole: bytes
) -> None:
    server = dying(
        until(whole, STAGES["after tokens"] or ""),
        until(whole, STAGES["before the first token"] or ""),
        httpx2.ConnectError("refused"),
        until(whole, STAGES["before the usage"] or ""),
        whole,
    )
    found = events((await web(server).post("/generate", json=LIVE)).text)
    assert (told(found), found[-1][0], len(server.asked)) == (TEXT, "result", 5)


async def test_reasoning_goes_on_too(web: Web, dying: Dying, events: Events, stream: Stream) -> None:
    answer = stream("春", "天", reasoning=("hm", "m"), fingerprint="fp_1")
    for mark in ('"hm"}, "finish_reason": null}], "system_fingerprint": "fp_1"}\n\n', '{"content": "天"'):
        found = events((await web(dying(until(answer, mark), answer)).post("/generate", json=LIVE)).text)
        assert [name for name, _ in found if name != "status"] == ["reasoning"] * 2 + ["token"] * 2 + ["result"]
        assert found[-1][1]["reasoning_content"] == "hmm"


# What a client is told in between


async def test_statuses_come_in_between(web: Web, dying: Dying, events: Events, whole: bytes) -> None:
    server = dying(until(whole, STAGES["after tokens"] or ""), document(problems.LOADING), whole)
    found = events((await web(server).post("/generate", json=LIVE)).text)
    assert [name for name, _ in found if name == "token"] == ["token"] * 3
    assert states(found)[:5] == ["queued", "running", "token", "token", "waking"]
    assert states(found)[-4:] == ["queued", "running", "token", "result"]
    assert found[-1][1]["timing"]["first_token_s"] <= found[-1][1]["timing"]["total_s"]


async def test_a_job_goes_on_in_its_log(opened: Opened, dying: Dying, events: Events, whole: bytes) -> None:
    server = dying(until(whole, STAGES["after tokens"] or ""), httpx2.ConnectError("refused"), whole)
    settings = Settings(models={"poet": "http://poet.test"})
    client = await opened(create_app(settings, httpx2.MockTransport(server)))
    location = (await client.post("/generate", json=JSON, headers={"Prefer": "respond-async"})).headers["location"]

    async def ended() -> bool:
        return bool((await client.get(location)).json()["state"] == "completed")

    await eventually(ended)
    found = events((await client.get(location, headers={"Accept": "text/event-stream"})).text)
    assert (told(found), found[-1][1]["text"]) == (TEXT, TEXT)
    assert states(found) == ["queued", "running", "token", "token", "running", "token", "result"]


# What is not asked again


@pytest.mark.parametrize("told_before", [True, False], ids=["after tokens", "before the first"])
@pytest.mark.parametrize("body", [JSON, LIVE], ids=["JSON", "SSE"])
async def test_without_a_fingerprint_nothing_that_was_told_is_continued(
    web: Web, dying: Dying, events: Events, stream: Stream, body: dict[str, Any], told_before: bool
) -> None:
    answer = stream(*PIECES)
    mark = '明月光"}, "finish_reason": null}]}\n\n' if told_before else '"content": ""}, "finish_reason": null}]}\n\n'
    server = dying(until(answer, mark), answer)
    response = await web(server).post("/generate", json=body)
    if body is LIVE and told_before:
        name, problem = events(response.text)[-1]
        assert (name, problem["type"], len(server.asked)) == ("error", problems.BAD_UPSTREAM.uri, 1)
    else:
        assert TEXT in response.text
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "fp_2"},
        {"fingerprint": None},
        {"pieces": ("床前", "月")},
        {"pieces": ("床前",)},
        {"pieces": ()},
        {"pieces": ("床前", "明月光", "！")},
        {"reasoning": ("hm",)},
    ],
    ids=str,
)
async def test_another_text_is_a_problem_of_its_own(
    web: Web, dying: Dying, events: Events, stream: Stream, other: dict[str, Any]
) -> None:
    first = until(
        stream(*PIECES, fingerprint="fp_1"), '，疑是"}, "finish_reason": null}], "system_fingerprint": "fp_1"}\n\n'
    )
    second = stream(*other.pop("pieces", PIECES), **{"fingerprint": "fp_1", **other})
    response = await web(dying(first, second)).post("/generate", json=LIVE)
    found = events(response.text)
    assert (told(found), found[-1][0], found[-1][1]["type"]) == (TEXT, "error", problems.DIVERGED.uri)
    answer = await web(dying(first, second)).post("/generate", json=JSON)  # to which nothing was told
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "failure",
    [
        *(httpx2.Response(status) for status in (400, 401, 404, 422, 429, 500, 504)),
        httpx2.Response(503, headers={"Retry-After": "1"}),
        *map(document, (problems.INTERNAL, problems.INVALID_FIELD, problems.OUT_OF_MEMORY, problems.TOO_LATE)),
        httpx2.Response(503, json=FULL.document),
        httpx2.Response(503, json=ProblemError(problems.UNAVAILABLE, "It cannot be started.", phase="failed").document),
        httpx2.ReadTimeout(""),
        httpx2.PoolTimeout(""),
        httpx2.DecodingError(""),
        b'data: {"choices": 3}\n\ndata: [DONE]\n\n',
        b"data: %s\n\n" % json.dumps(ProblemError(problems.INTERNAL, "Because.").document).encode(),
        b'data: {"choices": [{"delta": {}, "finish_reason": "content_filter"}]}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    ],
    ids=str,
)
async def test_what_failed_by_itself_is_not_asked_again(web: Web, dying: Dying, failure: Any) -> None:
    server = dying(failure)
    assert (await web(server).post("/generate", json=JSON)).status_code >= 400
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.Response(502),
        httpx2.Response(503),
        document(problems.UNAVAILABLE),
        b"data: %s\n\n" % json.dumps(ProblemError(problems.UNAVAILABLE, "Because.").document).encode(),
        httpx2.ConnectError(""),
        httpx2.ConnectTimeout(""),
        httpx2.ReadError(""),
        httpx2.WriteError(""),
        httpx2.RemoteProtocolError(""),
        b"",
    ],
    ids=str,
)
async def test_a_server_that_is_gone_is_asked_again(web: Web, dying: Dying, failure: Any, whole: bytes) -> None:
    server = dying(failure, whole)
    assert (await web(server).post("/generate", json=JSON)).json()["text"] == TEXT
    assert len(server.asked) == 2


# How often


async def test_what_kills_its_server_each_time_is_given_up(web: Web, dying: Dying, slug: Slug, whole: bytes) -> None:
    server = dying(until(whole, STAGES["after tokens"] or ""))
    response = await web(server).post("/generate", json=JSON)
    assert (slug(response), len(server.asked)) == ("bad-upstream", MOST_BREAKS + 1)


async def test_a_server_that_stays_away_is_given_up(web: Web, dying: Dying, slug: Slug) -> None:
    server = dying(httpx2.ConnectError("refused"))
    response = await web(server).post("/generate", json=JSON)
    assert (slug(response), len(server.asked)) == ("unavailable", MOST_REFUSALS)


async def test_nothing_is_asked_again_after_the_deadline(
    web: Web, dying: Dying, slug: Slug, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.rest.resumption.PAUSE_SECONDS", 2_000.0)
    monkeypatch.setattr("web.rest.resumption.MOST_PAUSE_SECONDS", 2_000.0)
    server = dying(httpx2.ConnectError("refused"), whole)
    response = await web(server).post("/generate", json=JSON)
    assert (slug(response), len(server.asked)) == ("unavailable", 1)
