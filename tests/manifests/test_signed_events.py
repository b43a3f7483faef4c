"""inbox as it is deployed: whose events it believes."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from contract import GenerationRequest
from contract.cloudevents import COMPLETED, ERROR_CODE, REQUESTED, CloudEvent
from tests.manifests.checks.kustomizations import render
from tests.manifests.checks.objects import environment
from tests.support.events import about, deliver, poem
from web.app import create_app
from web.settings import Settings
from wire.cloudevents import signed

RESULT = about("a-job", COMPLETED, poem("a-job"))
DEAD_LETTER = about("a-job", REQUESTED, GenerationRequest(prompt="x"), **{ERROR_CODE: "503"})


async def answers(root: Path, folder: str, monkeypatch: pytest.MonkeyPatch, *events: CloudEvent) -> list[int]:
    """Of the inbox of a folder, which has its jobs in memory here."""
    [inbox] = [thing for thing in render(root / "deploy" / folder) if thing.name == "inbox" and thing.containers]
    values = environment(inbox.containers[0]) | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    del values["STORE_URL"]
    values.pop("ARTIFACTS_URL", None)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    asleep = httpx2.MockTransport(lambda request: httpx2.Response(503))
    transport = httpx2.ASGITransport(create_app(Settings(), asleep))
    async with httpx2.AsyncClient(transport=transport, base_url="http://inbox.test") as client:
        return [(await deliver(client, event)).status_code for event in events]


async def test_deploy_events_believes_nothing_forged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "from-the-secret-predictor-token-token"
    forged = [RESULT, DEAD_LETTER, signed(RESULT, f"{token}x"), signed(DEAD_LETTER, f"{token}x")]
    assert await answers(root, "events", monkeypatch, *forged) == [401] * 4
    true = [signed(RESULT, token), signed(DEAD_LETTER, token)]
    assert await answers(root, "events", monkeypatch, *true) == [204, 204]


async def test_on_a_laptop_everybody_is_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """web says so in its log, once."""
    assert await answers(root, "laptop-events", monkeypatch, RESULT, DEAD_LETTER) == [204, 204]
