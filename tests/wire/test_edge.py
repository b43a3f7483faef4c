"""The smaller pieces of the edge: problem responses, strict bodies, the listening socket, settings."""

from __future__ import annotations

import json
import socket

import pytest
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request

from contract import GenerationRequest, ProblemError, problems
from wire.body import json_body
from wire.listener import listen
from wire.problems import ProblemHandlers, problem_response
from wire.settings import read_settings


def request(body: bytes = b"", **headers: str) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": raw}
    return Request({**scope, "server": ("web.test", 80), "scheme": "http"}, receive)


def test_a_problem_response() -> None:
    response = problem_response(ProblemError(problems.OVERLOADED, "full", retry_after=2))
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["retry-after"] == "2"
    assert json.loads(bytes(response.body))["detail"] == "full"


@pytest.mark.parametrize(
    ("error", "name", "detail"),
    [
        (HTTPException(404), "not-found", "There is nothing at /x."),
        (HTTPException(405, headers={"Allow": "GET"}), "method-not-allowed", "/x takes GET."),
        (HTTPException(400, "why"), "bad-request", "why"),
    ],
)
async def test_starlettes_errors_are_problems(error: HTTPException, name: str, detail: str) -> None:
    response = await ProblemHandlers().http_exception(request(), error)
    document = json.loads(bytes(response.body))
    assert document["type"] == f"urn:shangcai:problem:{name}"
    assert document["detail"] == detail
    assert response.headers.get("allow") == (error.headers or {}).get("Allow")


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json;charset=utf-8",
        'application/json; charset="UTF-8"; x=y',
    ],
)
async def test_json_in_utf8_is_a_body(media_type: str) -> None:
    order = await json_body(request('{"prompt": "雨"}'.encode(), content_type=media_type), GenerationRequest)
    assert order.prompt == "雨"


@pytest.mark.parametrize("media_type", ["", "text/json", "application/json; charset=gbk", "application/jsonx"])
async def test_anything_else_is_no_body(media_type: str) -> None:
    with pytest.raises(ProblemError) as caught:
        await json_body(request(b'{"prompt": "x"}', content_type=media_type), GenerationRequest)
    assert caught.value.kind is problems.UNSUPPORTED_MEDIA_TYPE
    assert "Content-Type: application/json" in caught.value.problem.detail


def test_a_listener_listens() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        pass


def test_a_port_in_use_is_one_line() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"^port {port} on 127.0.0.1 is in use$"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(OSError, match=r"^cannot listen on 192\.0\.2\.1 port 0: "):
        listen("192.0.2.1", 0)


class ServerSettings(BaseSettings):
    """Settings to read."""

    model_config = SettingsConfigDict(cli_prog_name="cook", cli_kebab_case=True)

    stove_count: int


def test_settings_come_from_flags_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(ServerSettings, ["--stove-count", "2"]).stove_count == 2
    monkeypatch.setenv("STOVE_COUNT", "3")
    assert read_settings(ServerSettings, []).stove_count == 3


@pytest.mark.parametrize("argv", [[], ["--stove-count", "two"]])
def test_wrong_settings_end_the_process(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(ServerSettings, argv)
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("cook: --stove-count: ")
