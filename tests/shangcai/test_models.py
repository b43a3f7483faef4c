"""What the Python client is told of the served models."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.support.web.served_web import ServedWeb


def test_which_models_there_are(client: Any, served: ServedWeb) -> None:
    found = client.models()
    assert [(model.name, model.kind) for model in found.models] == [("poet", "text"), ("painter", "image")]
    assert (found.default_model, found.models[0].limits.max_tokens) == ("poet", 4096)
    assert served.asked == []


@pytest.mark.usefixtures("no_pauses")
def test_the_models_are_asked_for_again_after_a_broken_connection(client: Any, served: ServedWeb) -> None:
    served.relay.lose = 2
    assert client.models(timeout=60).default_model == "poet"
    assert served.relay.sent.count("GET /models ") == 3


def test_what_a_later_version_says_of_models_is_ignored(make_client: Any) -> None:
    painter = {"name": "painter", "kind": "image", "refuses": ["mask", "later"], "limits": {"later": 1, "steps": 8}}
    document = {"models": [painter, {"name": "band", "kind": "later"}], "default_model": "painter", "later": 1}
    client = make_client("http://web.test", handler=lambda _: httpx2.Response(200, json=document))
    [model] = client.models().models
    assert (model.name, model.refuses, model.limits.steps) == ("painter", ["mask"], 8)
