"""The test broker itself: what it does is what Knative's does, or what it was asked to do wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract.cloudevents import COMPLETED, FAILED, REQUESTED, CloudEvent
from tests.support.processes import free_port
from wire.cloudevents import Mode, write_batch, write_event

pytestmark = pytest.mark.slow

Broker = Any  # of conftest, which cannot be imported
Letter = Any

BROKER = Path(__file__).parent / "broker.py"
DONE: tuple[int, dict[str, str], bytes] = (204, {}, b"")


def event(number: int = 0, kind: str = REQUESTED, **extensions: str) -> CloudEvent:
    return CloudEvent(
        id=f"e-{number}",
        source="/tests",
        type=kind,
        subject="春雨",
        datacontenttype="application/json",
        extensions=extensions,
        data=b'{"prompt":"x"}',
    )


@pytest.fixture
def broker(shared_broker: Broker) -> Broker:
    shared_broker.reset()
    return shared_broker


def answering(*answers: int | tuple[int, dict[str, str], bytes] | None) -> Callable[[Letter], Any]:
    """One answer after the other, and then 204."""
    left = list(answers)

    def answer(_letter: Letter) -> Any:
        given = left.pop(0) if left else DONE
        return (given, {}, b"") if isinstance(given, int) else given

    return answer


def replying(kind: str) -> Callable[[Letter], Any]:
    """Each event is answered with one of this type."""

    def answer(letter: Letter) -> Any:
        headers, body = write_event(event(kind=kind).model_copy(update={"id": f"re-{letter.event.id}"}))
        return 200, headers, body

    return answer


def gaps(letters: list[Letter]) -> list[float]:
    return [after.came - before.came for before, after in pairwise(letters)]


# Taking and delivering


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_an_event_is_delivered_to_every_trigger_that_wants_it(broker: Broker, subscriber: Any, mode: Mode) -> None:
    typed, other, every, exact = subscriber(), subscriber(), subscriber(), subscriber()
    broker.configure(
        triggers=[
            {"name": "typed", "filter": {"type": REQUESTED}, "subscriber": typed.url},
            {"name": "other", "filter": {"type": FAILED}, "subscriber": other.url},
            {"name": "all", "subscriber": f"{every.url}events", "headers": {"Authorization": "Bearer x"}},
            {"name": "exact", "filter": {"type": REQUESTED, "tone": "sad"}, "subscriber": exact.url},
        ]
    )
    answer = broker.send(event(tone="merry"), mode)
    assert (answer.status_code, answer.content) == (202, b"")
    tally = broker.settle()
    assert [len(each.letters) for each in (typed, other, every, exact)] == [1, 0, 1, 0]
    assert (tally["taken"], tally["deliveries"], tally["attempts"]) == (1, 2, 2)
    assert tally["triggers"]["typed"]["deliveries"] == 1
    [letter] = every.letters
    assert letter.path == "/events"
    assert letter.delivery.mode == "binary"
    assert letter.headers["prefer"] == "reply"
    assert letter.headers["authorization"] == "Bearer x"
    extensions = letter.event.extensions
    datetime.fromisoformat(extensions.pop("knativearrivaltime"))
    assert letter.event.model_copy(update={"extensions": extensions}) == event(tone="merry")


def test_a_trigger_may_want_documents(broker: Broker, subscriber: Any) -> None:
    taker = subscriber()
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, "format": "structured"}])
    broker.send(event())
    assert taker.wait_for(1)[0].delivery.mode == "structured"
    assert taker.events[0].key == event().key


def test_the_sender_is_answered_first(broker: Broker, subscriber: Any) -> None:
    taker, answered = subscriber(), threading.Event()
    taker.answer = lambda _letter: answered.wait(60) and DONE
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url}])
    assert broker.send(event()).status_code == 202
    assert broker.tally()["inFlight"] == 1
    answered.set()
    assert broker.settle()["deliveries"] == 1


def test_the_sender_is_held_if_asked(broker: Broker, subscriber: Any) -> None:
    """Replies are delivered, too, before the sender knows that its event was taken."""
    predictor, web = subscriber(), subscriber()
    predictor.answer = replying(COMPLETED)
    broker.configure(
        hold=True,
        triggers=[
            {"name": "predictor", "filter": {"type": REQUESTED}, "subscriber": predictor.url},
            {"name": "web", "filter": {"type": COMPLETED}, "subscriber": web.url},
        ],
    )
    assert broker.send(event()).status_code == 202
    assert [each.id for each in web.events] == ["re-e-0"]
    assert broker.tally()["inFlight"] == 0


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        ({"Content-Type": "application/cloudevents+json"}, b'{"specversion":"1.0"}'),
        write_batch([event()]),
        write_event(event(knativebrokerttl="many")),
        write_event(event(knativebrokerttl="1")),
    ],
)
def test_what_is_no_event_is_refused(broker: Broker, headers: dict[str, str], body: bytes) -> None:
    answer = httpx2.post(broker.url, headers=headers, content=body, trust_env=False)
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:shangcai:problem:malformed-event"
    tally = broker.tally()
    assert (tally["taken"], tally["refused"]) == (0, 1)


# Replies


def test_replies_come_back_into_the_broker(broker: Broker, subscriber: Any) -> None:
    predictor, web = subscriber(), subscriber()
    predictor.answer = replying(COMPLETED)
    broker.configure(
        triggers=[
            {"name": "predictor", "filter": {"type": REQUESTED}, "subscriber": predictor.url},
            {"name": "web", "filter": {"type": COMPLETED}, "subscriber": web.url},
        ]
    )
    for number in range(3):
        broker.send(event(number))
    tally = broker.settle()
    assert sorted(each.id for each in web.events) == ["re-e-0", "re-e-1", "re-e-2"]
    assert (tally["taken"], tally["replies"], tally["deliveries"]) == (6, 3, 6)


def test_a_loop_of_replies_comes_to_an_end(broker: Broker, subscriber: Any) -> None:
    echo = subscriber()
    echo.answer = replying(REQUESTED)
    broker.configure(triggers=[{"name": "echo", "subscriber": echo.url}], ttl=5)
    assert broker.send(event()).status_code == 202
    tally = broker.settle()
    assert len(echo.letters) == 5
    assert (tally["taken"], tally["replies"], tally["dropped"]) == (5, 5, 1)
    assert not any("knativebrokerttl" in each.extensions for each in echo.events)


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "application/json"}, b'{"text": "x"}'),
        (200, {"ce-id": "1"}, b""),
        (200, *write_batch([event()])),
        (200, *write_batch([])),
    ],
    ids=["JSON", "half an event", "a batch", "an empty batch"],
)
def test_success_with_something_else_in_it_is_none(broker: Broker, subscriber: Any, answer: Any) -> None:
    taker, sink = subscriber(), subscriber()
    taker.answer = answering(answer, answer)
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, "deadLetterSink": sink.url, "retry": 1}])
    broker.send(event())
    assert broker.settle()["retries"] == 1
    [letter] = sink.events
    assert letter.extensions["knativeerrorcode"] == "502"


# Retries


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 503, 599, None])
def test_what_may_pass_is_retried(broker: Broker, subscriber: Any, status: int | None) -> None:
    taker = subscriber()
    taker.answer = answering(status, status)
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, "retry": 2}])
    broker.send(event())
    tally = broker.settle()
    assert [each.id for each in taker.events] == ["e-0"] * 3
    assert (tally["attempts"], tally["retries"], tally["deliveries"], tally["undelivered"]) == (3, 2, 1, 0)


@pytest.mark.parametrize("status", [302, 400, 401, 410, 413, 422])
def test_what_will_not_pass_is_not_retried(broker: Broker, subscriber: Any, status: int) -> None:
    taker = subscriber()
    taker.answer = answering(status)
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, "retry": 2}])
    broker.send(event())
    tally = broker.settle()
    assert (tally["attempts"], tally["deliveries"], tally["undelivered"]) == (1, 0, 1)


@pytest.mark.parametrize(("policy", "waits"), [("exponential", [0.1, 0.2, 0.4]), ("linear", [0, 0.1, 0.2])])
def test_it_waits_longer_before_each_retry(broker: Broker, subscriber: Any, policy: str, waits: list[float]) -> None:
    taker = subscriber()
    taker.answer = answering(500, 500, 500)
    backoff = {"retry": 3, "backoffPolicy": policy, "backoffDelay": 0.1}
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, **backoff}])
    broker.send(event())
    broker.settle()
    assert all(gap >= wait for gap, wait in zip(gaps(taker.letters), waits, strict=True))


@pytest.mark.parametrize(
    ("status", "retry_after", "longest", "least", "most"),
    [
        (503, "1", 10, 1, 10),
        (429, "1", 10, 1, 10),
        (503, "3600", 0.3, 0.3, 60),
        (503, "3600", None, 0, 60),
        (500, "3600", 10, 0, 60),
        (503, "soon", 10, 0, 60),
    ],
)
def test_retry_after_counts_up_to_a_bound(
    broker: Broker, subscriber: Any, status: int, retry_after: str, longest: float | None, least: float, most: float
) -> None:
    taker = subscriber()
    taker.answer = answering((status, {"Retry-After": retry_after}, b""))
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, "retry": 1, "retryAfterMax": longest}])
    broker.send(event())
    [gap] = gaps(taker.wait_for(2))
    assert least <= gap < most


def test_an_attempt_has_its_time(broker: Broker, subscriber: Any) -> None:
    taker, over = subscriber(), threading.Event()
    slow = iter([True])
    taker.answer = lambda _letter: DONE if not next(slow, False) else over.wait(60) and DONE
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, "retry": 1, "timeout": 2}])
    broker.send(event())
    tally = broker.settle()
    over.set()
    assert (tally["attempts"], tally["deliveries"]) == (2, 1)


def test_a_subscriber_that_is_not_there_is_retried(broker: Broker) -> None:
    broker.configure(triggers=[{"name": "a", "subscriber": "http://127.0.0.1:9/", "retry": 2}])
    broker.send(event())
    tally = broker.settle()
    assert (tally["attempts"], tally["undelivered"]) == (3, 1)


# Dead letters


def test_what_cannot_be_delivered_goes_to_the_sink_with_the_reason(broker: Broker, subscriber: Any) -> None:
    taker, sink = subscriber(), subscriber()
    body = b"why:\r\n\x00" + b"x" * 2000
    taker.answer = answering(503, (400, {}, body))
    broker.configure(triggers=[{"name": "a", "subscriber": taker.url, "deadLetterSink": sink.url, "retry": 5}])
    broker.send(event(tone="sad"))
    tally = broker.settle()
    assert (tally["attempts"], tally["deadLetters"], tally["undelivered"]) == (3, 1, 0)
    [letter] = sink.events
    assert letter.key == event().key
    assert letter.data == event().data
    assert letter.extensions["tone"] == "sad"
    assert letter.extensions["knativeerrordest"] == taker.url
    assert letter.extensions["knativeerrorcode"] == "400"
    assert len(letter.extensions["knativeerrordata"]) == 1024
    assert base64.b64decode(letter.extensions["knativeerrordata"]) == b"why:" + b"x" * 764


def test_a_dead_letter_of_nobodys_answer(broker: Broker, subscriber: Any) -> None:
    sink = subscriber()
    sink.answer = answering(503)
    trigger = {"name": "a", "subscriber": "http://127.0.0.1:9/", "deadLetterSink": sink.url, "retry": 1}
    broker.configure(triggers=[trigger])
    broker.send(event())
    assert broker.settle()["deadLetters"] == 1
    letter = sink.events[-1]
    assert letter.extensions["knativeerrorcode"] == "500"
    assert base64.b64decode(letter.extensions["knativeerrordata"]).startswith(b"dispatch error: ConnectError(")


# Chaos


def test_everything_three_times(broker: Broker, subscriber: Any) -> None:
    predictor, web = subscriber(), subscriber()
    predictor.answer = replying(COMPLETED)
    broker.configure(
        chaos={"duplicates": "always 3"},
        triggers=[
            {"name": "predictor", "filter": {"type": REQUESTED}, "subscriber": predictor.url},
            {"name": "web", "filter": {"type": COMPLETED}, "subscriber": web.url},
        ],
    )
    broker.send(event())
    tally = broker.settle()
    assert (len(predictor.letters), len(web.letters)) == (3, 9)
    assert tally["duplicates"] == 2 + 3 * 2


def test_some_twice(broker: Broker, subscriber: Any) -> None:
    taker = subscriber()
    broker.configure(chaos={"duplicates": 0.5, "seed": 7}, triggers=[{"name": "a", "subscriber": taker.url}])
    for number in range(40):
        broker.send(event(number))
    tally = broker.settle()
    times = Counter(Counter(each.id for each in taker.events).values())
    assert times.keys() == {1, 2}
    assert times[2] == tally["duplicates"] == tally["deliveries"] - 40


def test_errors_come_before_and_after_the_delivery(broker: Broker, subscriber: Any) -> None:
    """What the subscriber has taken is delivered again when its answer is lost."""
    taker = subscriber()
    broker.configure(chaos={"errors": 0.5, "seed": 7}, triggers=[{"name": "a", "subscriber": taker.url, "retry": 50}])
    for number in range(40):
        broker.send(event(number))
    tally = broker.settle()
    assert {each.id for each in taker.events} == {f"e-{number}" for number in range(40)}
    assert tally["deliveries"] == 40
    assert tally["lostAnswers"] > 0
    assert len(taker.letters) == 40 + tally["lostAnswers"]
    assert tally["attempts"] > len(taker.letters)


def test_events_overtake_each_other(broker: Broker, subscriber: Any) -> None:
    taker = subscriber()
    broker.configure(chaos={"maxDelay": 0.3, "seed": 7}, triggers=[{"name": "a", "subscriber": taker.url}])
    sent = [f"e-{number}" for number in range(20)]
    for number in range(20):
        broker.send(event(number))
    broker.settle()
    came = [each.id for each in taker.events]
    assert sorted(came) == sorted(sent)
    assert came != sent


def test_nothing_is_delivered_for_a_while(broker: Broker, subscriber: Any) -> None:
    taker = subscriber()
    broker.configure(chaos={"holdFirst": 0.3}, triggers=[{"name": "a", "subscriber": taker.url}])
    begun = time.monotonic()
    broker.send(event())
    assert taker.wait_for(1)[0].came - begun >= 0.3
    begun = time.monotonic()
    broker.send(event(1))
    assert taker.wait_for(2)[1].came - begun < 60


def test_the_sender_waits_for_its_answer(broker: Broker, subscriber: Any) -> None:
    taker = subscriber()
    broker.configure(chaos={"answerDelay": 0.3}, triggers=[{"name": "a", "subscriber": taker.url}])
    begun = time.monotonic()
    assert broker.send(event()).status_code == 202
    assert time.monotonic() - begun >= 0.3


def test_only_so_many_attempts_at_once(broker: Broker, subscriber: Any) -> None:
    taker, lock = subscriber(), threading.Lock()
    most = now = 0

    def answer(_letter: Letter) -> Any:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return DONE

    taker.answer = answer
    broker.configure(concurrency=2, triggers=[{"name": "a", "subscriber": taker.url}])
    for number in range(10):
        broker.send(event(number))
    broker.settle()
    assert most == 2


# Settings


def test_settings_change_while_it_runs(broker: Broker, subscriber: Any) -> None:
    first, second = subscriber(), subscriber()
    broker.configure(triggers=[{"name": "a", "subscriber": first.url}])
    broker.send(event())
    broker.settle()
    broker.configure(triggers=[{"name": "a", "subscriber": second.url}])
    broker.send(event(1))
    assert broker.settle()["triggers"]["a"]["deliveries"] == 2
    assert [each.id for each in first.events + second.events] == ["e-0", "e-1"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"triggers": [{"name": "a"}]}, "triggers.0.subscriber"),
        ({"chaos": {"errors": 2}}, "chaos.errors"),
        ({"chaos": {"duplicates": "sometimes"}}, "chaos.duplicates"),
        ({"trigers": []}, "trigers"),
    ],
)
def test_wrong_settings_are_named(broker: Broker, settings: Any, field: str) -> None:
    answer = httpx2.put(f"{broker.process.url}/config", json=settings, trust_env=False)
    assert answer.status_code == 400
    assert any(error["field"].startswith(field) for error in answer.json()["errors"])


def test_settings_may_be_a_file(launch: Any, tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "broker.json"
    settings.write_text(json.dumps({"port": port, "triggers": [{"name": "a", "subscriber": "http://x"}]}))

    def ready() -> bool:
        with contextlib.suppress(httpx2.ConnectError):
            tally = httpx2.get(f"http://127.0.0.1:{port}/tally", trust_env=False).json()
            return list(tally["triggers"]) == ["a"]
        return False

    launch([sys.executable, str(BROKER), str(settings)], port, ready).wait_until_ready()


def test_it_forgets_what_it_held_when_it_is_killed(broker: Broker, subscriber: Any) -> None:
    """As Knative's InMemoryChannel does; jobs must end without its help."""
    taker = subscriber()
    broker.configure(chaos={"holdFirst": 60}, triggers=[{"name": "a", "subscriber": taker.url}])
    broker.send(event())
    broker.process.kill9()
    broker.process.restart()
    tally = broker.tally()
    assert (tally["taken"], tally["inFlight"]) == (0, 0)
    assert taker.letters == []
