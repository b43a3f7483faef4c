"""Servers of OpenAI's protocol that are not our predictor: where their routes are, and what proves who asks them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from web.settings import Settings
from wire.settings import read_settings

Web = Callable[..., httpx2.AsyncClient]
Answer = Callable[..., httpx2.Response]
Stream = Callable[..., bytes]

SECRET = "sk-of-the-server"
URL = "http://poet.test"


async def test_a_model_has_the_path_the_key_and_the_name_of_its_server(web: Web, seen: list[httpx2.Request]) -> None:
    served = {"url": URL, "path": "/v1", "api_key": SECRET, "upstream_model": "Qwen/Qwen3-8B"}
    response = await web(models={"poet": served}).post("/generate", json={"prompt": "x"})
    [request] = seen
    assert str(request.url) == f"{URL}/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert json.loads(request.content)["model"] == "Qwen/Qwen3-8B"
    assert response.json()["model"] == "poet"


async def test_pictures_have_the_same(web: Web, seen: list[httpx2.Request]) -> None:
    served = {"url": "http://painter.test", "kind": "image", "path": "", "upstream_model": "flux"}
    response = await web(models={"painter": served}).post("/generate", json={"prompt": "x"})
    assert (str(seen[0].url), json.loads(seen[0].content)["model"]) == (
        "http://painter.test/images/generations",
        "flux",
    )
    assert response.json()["model"] == "painter"


async def test_a_token_for_all_is_sent_where_a_model_has_no_key(web: Web, seen: list[httpx2.Request]) -> None:
    models = {"poet": URL, "novelist": {"url": URL, "api_key": SECRET}}
    client = web(models=models, predictor_token="for-all")
    for model in models:
        await client.post("/generate", json={"prompt": "x", "model": model})
    assert [request.headers["authorization"] for request in seen] == ["Bearer for-all", f"Bearer {SECRET}"]


async def test_without_a_token_there_is_no_authorization(web: Web, seen: list[httpx2.Request]) -> None:
    """The client's own is for web."""
    await web().post("/generate", json={"prompt": "x"}, headers={"Authorization": "Bearer mine"})
    assert "authorization" not in seen[0].headers


async def test_the_probe_proves_who_asks_too(web: Web, seen: list[httpx2.Request]) -> None:
    client = web(lambda _: httpx2.Response(404), models={"poet": {"url": URL, "api_key": SECRET}})
    response = await client.post("/warm", json={})
    assert response.status_code == 200, response.text
    assert {request.headers["authorization"] for request in seen} == {f"Bearer {SECRET}"}
    assert (await client.get("/status")).json()["models"][0]["state"] == "ready"


async def test_the_model_server_is_told_who_asks(web: Web, seen: list[httpx2.Request]) -> None:
    await web().post("/generate", json={"prompt": "x"})
    assert seen[0].headers["x-shangcai-caller"] == "default"


@pytest.mark.parametrize("live", [True, False])
async def test_the_model_server_is_told_that_nobody_sees_a_text_before_its_end(
    web: Web, seen: list[httpx2.Request], live: bool
) -> None:
    await web().post("/generate", json={"prompt": "x", "stream": live})
    assert ("x-shangcai-whole" in seen[0].headers) == (not live)


async def test_a_key_is_shown_to_nobody(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    models = {"poet": {"url": URL, "api_key": SECRET}}
    response = await web(lambda _: httpx2.Response(401, text="no"), models=models).post(
        "/generate", json={"prompt": "x"}
    )
    assert response.json()["type"] == "urn:shangcai:problem:refused-upstream"
    for text in (response.text, caplog.text, repr(Settings(models=models))):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"api_key": "two words of a secret"}, "models.poet.api-key"),
        ({"api_key": "secret\n"}, "models.poet.api-key"),
        ({"api_key": ""}, "models.poet.api-key"),
        ({"path": "v1"}, "models.poet.path"),
        ({"path": "/v1/"}, "models.poet.path"),
        ({"path": "/v1?key=secret"}, "models.poet.path"),
        ({"upstream_model": ""}, "models.poet.upstream-model"),
        ({"key": "secret"}, "models.poet.key"),
    ],
)
def test_what_an_entry_may_not_hold_is_named_and_not_shown(
    entry: dict[str, Any], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_settings(Settings, ["--models", json.dumps({"poet": {"url": URL, **entry}})])
    said = capsys.readouterr().err
    assert said.startswith(f"python -m web: --{field}: ")
    assert "secret" not in said.removeprefix(f"python -m web: --{field}: ")


def test_a_token_that_fits_no_header_is_refused() -> None:
    with pytest.raises(ValidationError, match="visible ASCII"):
        Settings(models={"poet": URL}, predictor_token="two words")
