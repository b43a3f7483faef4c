"""Log probabilities of a text, as model servers tell them and as clients get them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from contract.events import ResultEvent, TokenEvent
from contract.openai.text_documents import ChatDocuments, CompletionDocuments
from contract.result import Timing, Usage
from contract.texts.logprobs import LikelyToken, TokenLogprob
from web.rest.resumption import Delivered

Web = Callable[..., httpx2.AsyncClient]
Events = Callable[[str], list[tuple[str, Any]]]
Dying = Callable[..., Any]

RESET = httpx2.ReadError("reset")


def told(token: str, logprob: float = -0.5, value: bytes | None = None) -> TokenLogprob:
    known = list(token.encode() if value is None else value)
    likely = LikelyToken(token="x", logprob=-0.25, bytes=[120])
    return TokenLogprob(token=token, logprob=logprob, bytes=known, top_logprobs=[likely])


MOON = [told("\\xe6", -0.75, b"\xe6"), told("\\x9c\\x88", -0.125, b"\x9c\x88")]
PIECES = [
    ("床", [told("床")]),
    ("前明", [told("前", -1.0), told("明", -2.0)]),
    ("月", MOON),
    ("", [told("\\xe5", -3.0, b"\xe5")]),
]
ALL = [one for _, tokens in PIECES for one in tokens]


def answer(pieces: list[tuple[str, list[TokenLogprob]]], *, raw: bool = False) -> bytes:
    """As our predictor streams it."""
    documents = (CompletionDocuments if raw else ChatDocuments)("1", "poet", "fp_1")
    chunks = [documents.first(0), *(documents.piece(0, text, tokens) for text, tokens in pieces)]
    chunks += [documents.last(0, "length"), documents.totals([Usage(prompt_tokens=7, completion_tokens=9)], 0.0)]
    return "".join(f"data: {data}\n\n" for data in [*map(json.dumps, chunks), "[DONE]"]).encode()


def of_tokens(found: list[tuple[str, Any]]) -> list[TokenLogprob]:
    return [TokenLogprob(**one) for name, data in found if name == "token" for one in data.get("logprobs") or ()]


@pytest.mark.parametrize("raw", [False, True], ids=["chat", "plain"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_gets_them(web: Web, dying: Dying, events: Events, *, raw: bool, stream: bool) -> None:
    server = dying(answer(PIECES, raw=raw))
    response = await web(server).post(
        "/generate", json={"prompt": "x", "top_logprobs": 1, "raw": raw, "stream": stream}
    )

    asked = json.loads(server.asked[0].content)
    assert server.asked[0].url.path.endswith("/completions")
    assert (asked["logprobs"], asked.get("top_logprobs")) == ((1, None) if raw else (True, 1))
    if stream:
        found = events(response.text)
        assert of_tokens(found) == ALL
        assert [data["text"] for name, data in found if name == "token"] == [text for text, _ in PIECES]
        result = found[-1][1]
    else:
        result = response.json()
    assert result["text"] == "床前明月"
    assert [TokenLogprob(**one) for one in result["logprobs"]] == ALL


async def test_who_does_not_ask_gets_none(web: Web, dying: Dying) -> None:
    server = dying(answer([("床前明月", None)]))  # type: ignore[list-item]
    result = (await web(server).post("/generate", json={"prompt": "x"})).json()

    assert "logprobs" not in json.loads(server.asked[0].content)
    assert "logprobs" not in result


def chunk(**choice: Any) -> bytes:
    whole = {"choices": [{"index": 0, "finish_reason": None, **choice}]}
    return f"data: {json.dumps(whole)}\n\n".encode()


END = (
    chunk(delta={}, text="", finish_reason="stop")
    + b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
)


async def test_vllm_tells_them_in_the_same_shapes(web: Web, dying: Dying) -> None:
    likely = {"token": "月", "logprob": -9999.0, "bytes": None}
    content = [{"token": "月", "logprob": -0.5, "bytes": [230, 156, 136], "top_logprobs": [likely], "more": 1}]
    server = dying(chunk(delta={"content": "月"}, logprobs={"content": content}) + END)
    [one] = (await web(server).post("/generate", json={"prompt": "x", "top_logprobs": 1})).json()["logprobs"]
    assert one["top_logprobs"] == [{"token": "月", "logprob": -9999.0, "bytes": [230, 156, 136]}]

    lists = {"text_offset": [0], "token_logprobs": [-0.5], "tokens": ["月"], "top_logprobs": [{"x": -2.0, "月": -0.5}]}
    server = dying(chunk(text="月", logprobs=lists) + END)
    [one] = (await web(server).post("/generate", json={"prompt": "x", "raw": True, "top_logprobs": 2})).json()[
        "logprobs"
    ]
    assert [other["token"] for other in one["top_logprobs"]] == ["月", "x"]
    assert one["bytes"] == [230, 156, 136]


@pytest.mark.parametrize(
    "logprobs", [{"content": [{"token": "a"}]}, {"content": [{"token": "a", "logprob": "high"}]}, 7]
)
async def test_what_is_no_log_probability_is_the_servers_mistake(web: Web, dying: Dying, logprobs: Any) -> None:
    server = dying(chunk(delta={"content": "a"}, logprobs=logprobs) + END)

    assert (await web(server).post("/generate", json={"prompt": "x"})).status_code == 502


RECUT = [("床前", ALL[:2]), ("明", ALL[2:3]), ("月", MOON), ("", ALL[5:])]
JOINED = [("床前明月", ALL[:5]), ("", ALL[5:])]


@pytest.mark.parametrize("second", [PIECES, RECUT, JOINED], ids=["the same", "cut otherwise", "in one piece"])
@pytest.mark.parametrize("delivered", range(len(PIECES) + 1))
async def test_a_text_that_goes_on_elsewhere_has_each_of_them_once(
    web: Web, dying: Dying, events: Events, delivered: int, second: list[tuple[str, list[TokenLogprob]]]
) -> None:
    whole = answer(PIECES)
    cut = whole.split(b"\n\n")
    begun = b"\n\n".join(cut[: 1 + delivered]) + b"\n\n"
    server = dying((begun, RESET), answer(second))
    found = events((await web(server).post("/generate", json={"prompt": "x", "top_logprobs": 1, "stream": True})).text)

    assert of_tokens(found) == ALL
    assert "".join(data["text"] for name, data in found if name == "token") == "床前明月"
    assert [TokenLogprob(**one) for one in found[-1][1]["logprobs"]] == ALL
    text = b""
    for name, data in found:
        if name == "token":
            text += data["text"].encode()
            tokens = b"".join(bytes(one.bytes) for one in of_tokens(found[: found.index((name, data)) + 1]))
            assert tokens.startswith(text) or text.startswith(tokens)


def test_numbers_that_round_otherwise_are_no_other_answer() -> None:
    delivered = Delivered(live=True)
    assert delivered.new(TokenEvent(text="床", logprobs=[told("床", -0.5)]), "fp") is not None
    delivered.again(RuntimeError(), "fp")  # type: ignore[arg-type]  # what has ended the first

    assert delivered.new(TokenEvent(text="床", logprobs=[told("床", -0.500001)]), "fp") is None
    new = delivered.new(TokenEvent(text="前", logprobs=[told("前", -1.0)]), "fp")
    assert new == TokenEvent(text="前", logprobs=[told("前", -1.0)])
    end = ResultEvent(
        id="1",
        model="poet",
        text="床前",
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=2),
        timing=Timing(queue_s=None, first_token_s=0.0, total_s=0.0),
    )
    assert delivered.new(end, "fp") == end
