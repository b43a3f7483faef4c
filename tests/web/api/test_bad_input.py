"""What a client can send wrongly: each has its own problem, and none reaches a model server."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncGenerator, Callable, Iterator

import httpx2
import pytest

from contract import MAX_TOKENS, PROMPT_CHARS

Web = Callable[..., httpx2.AsyncClient]
Slug = Callable[[httpx2.Response], str]

JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def nothing_reaches_a_model_server(seen: list[httpx2.Request]) -> Iterator[None]:
    yield
    assert seen == []


BODIES = {
    "no body": (b"", "malformed-body", "not valid JSON"),
    "broken": (b'{"prompt": "x"', "malformed-body", "not valid JSON"),
    "invalid UTF-8": (b'{"prompt": "\xff\xfe"}', "malformed-body", "unicode"),
    "lone surrogate": (b'{"prompt": "\\ud800"}', "malformed-body", "not valid JSON"),
    "depth bomb": (b"[" * 500_000, "malformed-body", "recursion limit"),
    "number bomb": (b'{"prompt": "x", "seed": ' + b"9" * 500_000 + b"}", "malformed-body", "number out of range"),
    "array": (b"[]", "invalid-field", "body: input should be an object"),
    "null": (b"null", "invalid-field", "body: input should be an object"),
    "no prompt": (b"{}", "invalid-field", "prompt: is required"),
    "null prompt": (b'{"prompt": null}', "invalid-field", "prompt: input should be a valid string"),
    "empty prompt": (b'{"prompt": ""}', "invalid-field", "prompt: string should have at least 1 character"),
    "blank prompt": (b'{"prompt": " \\n\\u3000"}', "invalid-field", "prompt: must contain more than white space"),
    "long prompt": (
        json.dumps({"prompt": "雨" * (PROMPT_CHARS + 1)}).encode(),
        "invalid-field",
        f"prompt: string should have at most {PROMPT_CHARS} characters",
    ),
    "max_tokens 0": (
        b'{"prompt": "x", "max_tokens": 0}',
        "invalid-field",
        "max_tokens: input should be greater than or equal to 1",
    ),
    "max_tokens huge": (
        b'{"prompt": "x", "max_tokens": 1000000000}',
        "invalid-field",
        f"max_tokens: input should be less than or equal to {MAX_TOKENS}",
    ),
    "max_tokens a string": (
        b'{"prompt": "x", "max_tokens": "5"}',
        "invalid-field",
        "max_tokens: input should be a valid integer",
    ),
    "max_tokens a bool": (
        b'{"prompt": "x", "max_tokens": true}',
        "invalid-field",
        "max_tokens: input should be a valid integer",
    ),
    "NaN temperature": (
        b'{"prompt": "x", "temperature": NaN}',
        "invalid-field",
        "temperature: input should be a finite number",
    ),
    "endless temperature": (
        b'{"prompt": "x", "temperature": 1e999}',
        "invalid-field",
        "temperature: input should be a finite number",
    ),
    "size a word": (b'{"prompt": "x", "size": "abc"}', "invalid-field", "size: must be a width and a height"),
    "steps huge": (b'{"prompt": "x", "steps": 10000}', "invalid-field", "steps: input should be less than or equal to"),
    "NaN guidance": (b'{"prompt": "x", "guidance": NaN}', "invalid-field", "guidance: input should be a finite number"),
    "unknown format": (
        b'{"prompt": "x", "format": "gif"}',
        "invalid-field",
        "format: input should be 'png', 'jpeg' or 'webp'",
    ),
    "unknown kind": (b'{"prompt": "x", "kind": "song"}', "invalid-field", "kind: input should be 'text' or 'image'"),
    "unknown field": (
        b'{"prompt": "x", "max_token": 5}',
        "invalid-field",
        "max_token: unknown field; allowed are ",
    ),
}


@pytest.mark.parametrize(("body", "expected", "detail"), BODIES.values(), ids=BODIES.keys())
async def test_a_bad_body_is_named(web: Web, slug: Slug, body: bytes, expected: str, detail: str) -> None:
    response = await web().post("/generate", content=body, headers=JSON)
    assert response.status_code == 400
    assert slug(response) == expected
    assert detail in response.json()["detail"]
    if expected == "invalid-field":
        assert detail.startswith(response.json()["errors"][0]["field"] + ": ")


async def test_an_unknown_model_is_answered_with_the_served_ones(web: Web, slug: Slug) -> None:
    response = await web().post("/generate", json={"prompt": "x", "model": "cook"})
    assert (response.status_code, slug(response)) == (404, "unknown-model")
    assert response.json()["detail"] == (
        "There is no model 'cook' here; the models served are: poet, novelist, painter."
    )


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/x-www-form-urlencoded",  # what `curl -d` sends
        "text/plain",
        "application/problem+json",
        "application/json; charset=latin-1",
        "multipart/form-data; boundary=x",
        "application/json*",
        ";;;",
    ],
)
async def test_another_media_type_is_refused_with_the_right_one(web: Web, slug: Slug, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await web().post("/generate", content=b'{"prompt": "x"}', headers=headers)
    assert (response.status_code, slug(response)) == (415, "unsupported-media-type")
    assert "Content-Type: application/json" in response.json()["detail"]


async def test_a_compressed_body_is_refused_by_the_name_of_its_coding(web: Web, slug: Slug) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = await web().post("/generate", content=gzip.compress(b'{"prompt": "x"}'), headers=headers)
    assert (response.status_code, slug(response)) == (415, "unsupported-media-type")
    assert "Content-Encoding: gzip" in response.json()["detail"]


@pytest.mark.parametrize(
    "accept", ["image/png", "text/html", "application/json;q=0", "application/json;q=nonsense", "text/*;q=0", "json"]
)
async def test_an_unsupported_accept_is_refused_with_the_forms_there_are(web: Web, slug: Slug, accept: str) -> None:
    response = await web().post("/generate", json={"prompt": "x", "model": "poet"}, headers={"Accept": accept})
    assert (response.status_code, slug(response)) == (406, "not-acceptable")
    assert response.json()["detail"] == "A text is served as application/json or text/event-stream."


async def test_a_body_over_the_limit_is_refused(web: Web, slug: Slug) -> None:
    response = await web(body_bytes=100).post("/generate", content=b"x" * 101, headers=JSON)
    assert (response.status_code, slug(response)) == (413, "body-too-large")
    assert response.json()["detail"] == "A body may have at most 100 bytes."
    assert response.headers["connection"] == "close"


async def test_a_body_of_unknown_length_over_the_limit_is_refused(web: Web, slug: Slug) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 60_000

    response = await web(body_bytes=100_000).post("/generate", content=endless(), headers=JSON)
    assert (response.status_code, slug(response)) == (413, "body-too-large")


async def test_an_unknown_path_is_a_problem(web: Web, slug: Slug) -> None:
    response = await web().get("/nowhere")
    assert (response.status_code, slug(response)) == (404, "not-found")


@pytest.mark.parametrize(("method", "path"), [("GET", "/generate"), ("DELETE", "/generate"), ("POST", "/healthz")])
async def test_a_wrong_method_is_a_problem(web: Web, slug: Slug, method: str, path: str) -> None:
    response = await web().request(method, path)
    assert (response.status_code, slug(response)) == (405, "method-not-allowed")
    assert response.headers["allow"] in response.json()["detail"]


async def test_an_exception_is_a_problem_without_a_traceback(
    web: Web, slug: Slug, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("secret")

    monkeypatch.setattr("web.api.generation_call.text_form", broken)
    response = await web().post("/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (500, "internal")
    assert "secret" not in response.text
    assert "secret" in caplog.text
