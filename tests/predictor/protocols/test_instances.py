"""Problems of the predictor name their request, in the dialect of every route and within streams."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from contract import ProblemError, problems
from tests.support.wire.instances import PREFIX

CHAT = "/openai/v1/chat/completions"
NAMED = {"X-Request-Id": "mine"}
OF_CHAT = {"model": "poet", "messages": [{"role": "user", "content": "a"}]}
OF_V1 = {"instances": [{"prompt": "a"}]}
OF_V2 = {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, OF_CHAT), ("/v1/models/poet:predict", OF_V1), ("/v2/models/poet/infer", OF_V2)],
    ids=["openai", "v1", "v2"],
)
@pytest.mark.parametrize(
    ("error", "status"), [(ProblemError(problems.OVERLOADED, "full"), 503), (RuntimeError("secret"), 500)]
)
async def test_a_failure_names_its_request(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any], error: Exception, status: int
) -> None:
    engine.refuse(error)
    answer = await client.post(path, json=body, headers=NAMED)
    assert (answer.status_code, answer.json()["instance"]) == (status, PREFIX + "mine")
    assert answer.json()["error"]


async def test_the_error_of_a_stream_names_its_request(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("half", ProblemError(problems.INTERNAL, "The model failed on this request."))
    answer = await client.post(CHAT, json=OF_CHAT | {"stream": True}, headers=NAMED)
    assert answer.status_code == 200
    assert json.loads(answer.text.rpartition("data: ")[2])["instance"] == PREFIX + "mine"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/models/bard:predict", 404), ("GET", CHAT, 405), ("GET", "/nowhere", 404)],
)
async def test_what_is_not_there_names_its_request(
    client: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path, json=OF_V1, headers=NAMED)
    assert (answer.status_code, answer.json()["instance"]) == (status, PREFIX + "mine")
