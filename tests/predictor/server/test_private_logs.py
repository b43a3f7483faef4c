"""What was asked and what was answered stands in no log of the predictor."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx2
import pytest

from contract import problems
from contract.cloudevents import REQUESTED
from contract.problems import ProblemError

MARK = "persimmon"
MESSAGES = [{"role": "user", "content": f"a {MARK}"}]
INPUT = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [f"a {MARK}"]}
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": REQUESTED}
ROUTES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "chat": ("/openai/v1/chat/completions", {"model": "poet", "messages": MESSAGES}, {}),
    "chat stream": ("/openai/v1/chat/completions", {"model": "poet", "messages": MESSAGES, "stream": True}, {}),
    "completions": ("/openai/v1/completions", {"model": "poet", "prompt": f"a {MARK}"}, {}),
    "v1": ("/v1/models/poet:predict", {"instances": [{"prompt": f"a {MARK}"}]}, {}),
    "v2": ("/v2/models/poet/infer", {"inputs": [INPUT]}, {}),
    "event": ("/", {"prompt": f"a {MARK}"}, EVENT),
}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [logging.Formatter().format(record) for record in caplog.records if record.levelno >= logging.INFO]
    assert lines
    return [line for line in lines if MARK in line]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "failure",
    [None, ProblemError(problems.OVERLOADED, f"about {MARK}"), ProblemError(problems.OUT_OF_MEMORY, f"about {MARK}")],
    ids=["success", "full", "refused"],
)
async def test_a_generation(
    server: Any, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, route: str, failure: ProblemError | None
) -> None:
    caplog.set_level(logging.DEBUG)
    server.engine.enqueue(MARK, *([] if failure is None else [failure]))
    path, body, headers = ROUTES[route]
    answer = await client.post(path, json=body, headers=headers)
    assert MARK in answer.text
    assert logged(caplog) == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("wrong", [f'{{"{MARK}": 1}}', f'{{"{MARK}', f'["{MARK}"]', f'"{MARK}"'])
async def test_a_request_that_is_refused(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, route: str, wrong: str
) -> None:
    caplog.set_level(logging.DEBUG)
    path, _, headers = ROUTES[route]
    answer = await client.post(path, content=wrong, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code >= 400 or "error" in json.dumps(answer.text) or path == "/"
    assert logged(caplog) == []
