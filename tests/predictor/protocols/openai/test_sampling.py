"""How the next token is chosen, and how likely tokens were: in OpenAI's shapes."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai.types
import openai.types.chat
import pytest

from contract.problems import FieldError, field_problem
from contract.texts.logprobs import LikelyToken, TokenLogprob
from predictor.engine.events import Token

CHAT = "/openai/v1/chat/completions"
COMPLETIONS = "/openai/v1/completions"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "poet", "messages": [{"role": "user", "content": "moon"}]},
    COMPLETIONS: {"model": "poet", "prompt": "moon"},
}
BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
FIELDS: dict[str, Any] = {
    "top_k": 7,
    "min_p": 0.1,
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "logit_bias": {"5": 1.5},
}


def told(token: str, logprob: float, value: bytes | None = None) -> TokenLogprob:
    known = list(token.encode() if value is None else value)
    return TokenLogprob(
        token=token,
        logprob=logprob,
        bytes=known,
        top_logprobs=[
            LikelyToken(token=token, logprob=logprob, bytes=known),
            LikelyToken(token="x", logprob=-9.0, bytes=[120]),
        ],
    )


MOON = (told("\\xe6", -0.5, b"\xe6"), told("\\x9c\\x88", -0.25, b"\x9c\x88"))
PIECES = (Token("a", (told("a", -1.0),)), Token("月", MOON), Token("b", (told("b", -2.0),)))


async def chunks(client: httpx2.AsyncClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    answer = await client.post(path, json=BODIES[path] | {"stream": True} | fields)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@BOTH
async def test_they_reach_the_engine(client: httpx2.AsyncClient, engine: Any, path: str) -> None:
    engine.enqueue("x")
    assert (await client.post(path, json=BODIES[path] | FIELDS)).status_code == 200

    sampling = engine.tasks[0].sampling
    assert {name: getattr(sampling, name) for name in FIELDS} == FIELDS


@pytest.mark.parametrize(
    ("path", "fields", "count"),
    [
        (CHAT, {"logprobs": True, "top_logprobs": 2}, 2),
        (CHAT, {"logprobs": True}, 0),
        (CHAT, {"logprobs": False}, None),
        (CHAT, {}, None),
        (COMPLETIONS, {"logprobs": 2}, 2),
        (COMPLETIONS, {"logprobs": 0}, 0),
        (COMPLETIONS, {}, None),
    ],
)
async def test_how_many_are_asked_for(
    client: httpx2.AsyncClient, engine: Any, path: str, fields: dict[str, Any], count: int | None
) -> None:
    engine.enqueue("x")
    await client.post(path, json=BODIES[path] | fields)

    assert engine.tasks[0].sampling.top_logprobs == count


@BOTH
async def test_a_bias_of_no_token_names_it_whatever_the_number_of_prompts(
    client: httpx2.AsyncClient, engine: Any, path: str
) -> None:
    engine.refuse(field_problem([FieldError(field="logit_bias.900", detail="must be one of the model's tokens")]))
    several = {"prompt": ["moon", "sun"]} if path == COMPLETIONS else {}
    answer = await client.post(path, json=BODIES[path] | several | {"logit_bias": {"900": 1}})

    assert answer.status_code == 400
    assert "logit_bias.900" in answer.json()["error"]["message"]
    assert "logit_bias.900.0" not in answer.text


async def test_a_chat_tells_them(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(*PIECES)
    answer = (await client.post(CHAT, json=BODIES[CHAT] | {"logprobs": True, "top_logprobs": 2})).json()

    [choice] = openai.types.chat.ChatCompletion.model_validate(answer).choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [(one.token, one.logprob) for one in choice.logprobs.content] == [
        ("a", -1.0),
        ("\\xe6", -0.5),
        ("\\x9c\\x88", -0.25),
        ("b", -2.0),
    ]
    assert [other.token for other in choice.logprobs.content[0].top_logprobs] == ["a", "x"]
    assert b"".join(bytes(one.bytes or ()) for one in choice.logprobs.content).decode() == "a月b"


async def test_a_plain_completion_tells_them_in_lists(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(*PIECES)
    answer = (await client.post(COMPLETIONS, json=BODIES[COMPLETIONS] | {"logprobs": 2})).json()

    logprobs = openai.types.Completion.model_validate(answer).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", "\\xe6", "\\x9c\\x88", "b"]
    assert logprobs.token_logprobs == [-1.0, -0.5, -0.25, -2.0]
    assert logprobs.text_offset == [0, 1, 1, 2], "of characters, of which one has two tokens"
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"a": -1.0, "x": -9.0}


@BOTH
async def test_in_a_stream_each_piece_has_its_own(client: httpx2.AsyncClient, engine: Any, path: str) -> None:
    engine.enqueue(*PIECES)
    asked = {"logprobs": True} if path == CHAT else {"logprobs": 0}
    first, *pieces, last = [chunk["choices"][0] for chunk in await chunks(client, path, **asked)]

    assert first["logprobs"] is last["logprobs"] is None
    if path == CHAT:
        assert [len(piece["logprobs"]["content"]) for piece in pieces] == [1, 2, 1]
    else:
        assert [piece["logprobs"]["text_offset"] for piece in pieces] == [[0], [1, 1], [2]]


@BOTH
async def test_tokens_that_are_no_text_are_told_in_an_empty_piece(
    client: httpx2.AsyncClient, engine: Any, path: str
) -> None:
    engine.enqueue(PIECES[0], Token("", MOON[:1]), finish_reason="length")
    asked = {"logprobs": True} if path == CHAT else {"logprobs": 0}
    *_, piece, _last = [chunk["choices"][0] for chunk in await chunks(client, path, **asked)]

    assert (piece["delta"]["content"] if path == CHAT else piece["text"]) == ""
    assert piece["logprobs"] is not None


async def test_kserves_first_protocol_tells_them_and_its_second_says_that_it_does_not(
    client: httpx2.AsyncClient, engine: Any
) -> None:
    engine.enqueue(*PIECES)
    body = {"instances": [{"prompt": "moon", "top_logprobs": 2}]}
    [prediction] = (await client.post("/v1/models/poet:predict", json=body)).json()["predictions"]
    assert [one["token"] for one in prediction["logprobs"]] == ["a", "\\xe6", "\\x9c\\x88", "b"]

    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["moon"]}
    answer = await client.post("/v2/models/poet/infer", json={"inputs": [tensor], "parameters": {"top_logprobs": 2}})
    assert answer.status_code == 400
    assert "top_logprobs" in answer.text
