"""With a token all events of a predictor are signed: replies, those whose data lie elsewhere, and progress."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from contract import ProblemError, problems
from contract.cloudevents import DATAREF, PROGRESS, REQUESTED, SIGNATURE, CloudEvent, GenerationProgress
from predictor.events.event_sink import EventSink
from predictor.events.reply_builder import ReplyBuilder
from tests.support.events import poem
from wire.artifacts import Artifacts
from wire.cloudevents import is_signed

TOKEN = "a-token-of-the-predictors"
REQUEST = CloudEvent(id="1", source="/web", type=REQUESTED, subject="job")


async def test_a_reply_is_signed() -> None:
    replies = ReplyBuilder("/poet", token=SecretStr(TOKEN))
    completed = await replies.completed(REQUEST, poem("job"))
    failed = replies.failed(REQUEST, ProblemError(problems.UNKNOWN_MODEL, "None.").problem)
    assert is_signed(completed, TOKEN)
    assert is_signed(failed, TOKEN)
    other = completed.model_copy(update={"data": json.dumps({"text": "forged"}).encode()})
    assert not is_signed(other, TOKEN)


async def test_where_the_data_lie_is_signed_too(tmp_path: Path) -> None:
    artifacts = Artifacts(f"file://{tmp_path}")
    reply = await ReplyBuilder("/poet", 10, artifacts, SecretStr(TOKEN)).completed(REQUEST, poem("job"))
    assert reply.data is None
    assert is_signed(reply, TOKEN)
    elsewhere = reply.extensions | {DATAREF: f"file://{tmp_path}/another.json"}
    assert not is_signed(reply.model_copy(update={"extensions": elsewhere}), TOKEN)


async def test_without_a_token_nothing_is_signed() -> None:
    assert SIGNATURE not in (await ReplyBuilder("/poet").completed(REQUEST, poem("job"))).extensions


async def test_progress_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[CloudEvent] = []

    async def keep(_client: httpx2.AsyncClient, event: CloudEvent) -> None:
        sent.append(event)
        raise StopAsyncIteration

    sink = EventSink("http://sink.test", {"team": "poetry"}, token=SecretStr(TOKEN))
    monkeypatch.setattr(sink, "_post", keep)
    event = CloudEvent(id="2", source="/poet", type=PROGRESS, subject="job")
    sink.put(event.with_data(GenerationProgress(model="poet", state="running", text="春")))
    with pytest.raises(StopAsyncIteration):
        await sink.send()
    assert [is_signed(one, TOKEN) for one in sent] == [True]
    assert sent[0].extensions["team"] == "poetry"
