"""The phases of a generation: one clock, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.wire.spans import Spans, seconds_of
from wire.telemetry.facts import Facts, gathered
from wire.telemetry.generation import GenerationTelemetry
from wire.telemetry.tracing import work


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr("wire.telemetry.generation.time.perf_counter", clock)
    yield clock
    monkeypatch.undo()


def test_each_phase_begins_where_the_last_one_ended(clock: Clock) -> None:
    telemetry = GenerationTelemetry("poet", 99.5, "accept")
    for phase, seconds in (("limit", 1.0), ("connect", 2.0), ("queue", 0.25), ("connect", 4.0)):
        telemetry.enter(phase)
        clock.now += seconds
    telemetry.enter("deliver")
    telemetry.end()
    assert telemetry.phases == {"accept": 0.5, "limit": 1.0, "connect": 6.0, "queue": 0.25, "deliver": 0.0}
    assert sum(telemetry.phases.values()) == telemetry.seconds == 7.75


def test_a_phase_that_is_entered_again_goes_on(clock: Clock) -> None:
    telemetry = GenerationTelemetry("poet", 100.0, "queue")
    clock.now = 101.0
    telemetry.enter("queue")
    clock.now = 103.0
    assert telemetry.phases == {"queue": 3.0}


def test_a_phase_may_turn_out_to_have_been_another_one(clock: Clock) -> None:
    telemetry = GenerationTelemetry("poet", 100.0, "accept")
    telemetry.enter("connect")
    clock.now = 105.0
    telemetry.turns_out("wake")
    assert telemetry.phases == {"accept": 0.0, "wake": 5.0}


def test_the_queue_is_divided_by_what_the_model_server_says(clock: Clock) -> None:
    telemetry = GenerationTelemetry("poet", 100.0, "queue")
    clock.now = 103.0
    telemetry.first_token("decode")
    clock.now = 104.0
    telemetry.divide("queue", 1.0, "prefill")
    assert telemetry.phases == {"queue": 1.0, "prefill": 2.0, "decode": 1.0}


@pytest.mark.parametrize("seconds", [3.0, 17.0])
def test_a_queue_of_all_that_time_is_not_divided(clock: Clock, seconds: float) -> None:
    telemetry = GenerationTelemetry("poet", 100.0, "queue")
    clock.now = 103.0
    telemetry.first_token("decode")
    telemetry.divide("queue", seconds, "prefill")
    assert telemetry.phases == {"queue": 3.0, "decode": 0.0}


def test_only_the_first_token_counts_and_only_the_first_end(clock: Clock) -> None:
    telemetry = GenerationTelemetry("poet", 100.0, "queue")
    clock.now = 101.0
    telemetry.first_token("decode")
    clock.now = 102.0
    telemetry.first_token("decode")
    telemetry.end()
    clock.now = 200.0
    telemetry.enter("deliver")
    telemetry.end("internal")
    assert telemetry.first_token_at == 101.0
    assert telemetry.seconds == 2.0
    assert telemetry.phases == {"queue": 1.0, "decode": 1.0}


def test_each_attempt_has_its_own_first_token_and_the_request_that_of_the_first(clock: Clock) -> None:
    telemetry = GenerationTelemetry("poet", 100.0, "queue")
    for phase, now in (("decode", 101.0), ("retry", 102.0), ("prefill", 103.0), ("decode", 104.0)):
        clock.now = now
        (telemetry.first_token if phase == "decode" else telemetry.enter)(phase)
    clock.now = 106.0
    telemetry.end()
    assert telemetry.phases == {"queue": 1.0, "decode": 3.0, "retry": 1.0, "prefill": 1.0}
    assert telemetry.first_token_at == 101.0


def test_the_tokens_of_several_generations_are_those_of_the_request() -> None:
    with gathered(Facts("r1")) as facts:
        for tokens in (3, 4):
            telemetry = GenerationTelemetry("poet", 0.0, "accept")
            telemetry.prompt_tokens, telemetry.completion_tokens = 7, tokens
            telemetry.end()
        GenerationTelemetry("painter", 0.0, "accept").end()
    assert (facts.prompt_tokens, facts.completion_tokens) == (14, 7)


def test_the_facts_of_the_request_hold_what_came(clock: Clock) -> None:
    facts = Facts("r1")
    with gathered(facts):
        telemetry = GenerationTelemetry("poet", 99.0, "accept")
        telemetry.first_token("decode")
        telemetry.prompt_tokens, telemetry.completion_tokens = 7, 3
        clock.now = 102.0
        telemetry.end("too-late")
    assert (facts.model, facts.problem, facts.prompt_tokens, facts.completion_tokens) == ("poet", "too-late", 7, 3)
    assert facts.phases == {"accept": 1.0, "decode": 2.0}
    assert facts.first_token_seconds == 1.0
    assert facts.generation_ended == 102.0


def test_spans_are_the_phases(spans: Spans) -> None:
    with work("request", {}):
        telemetry = GenerationTelemetry("poet", 0.0, "accept")
        telemetry._begun = [("accept", 0.0), ("queue", 1.0), ("prefill", 3.0), ("decode", 3.0005)]
        telemetry.completion_tokens = 3
        telemetry.end("internal")
    [whole] = spans.named("generate poet")
    assert (whole.attributes or {}) == {
        "shangcai.model": "poet",
        "shangcai.completion_tokens": 3,
        "error.type": "internal",
    }
    assert not whole.status.is_ok
    children = spans.under(whole)
    assert [child.name for child in children] == ["accept", "queue", "decode"]  # a prefill of half a millisecond
    assert [round(seconds_of(child)) for child in children[:2]] == [1, 2]
    assert sum(map(seconds_of, children)) == pytest.approx(seconds_of(whole), rel=0.01)
    [request] = spans.named("request")
    assert spans.under(request) == [whole]


def test_nothing_is_traced_outside_of_a_request(spans: Spans) -> None:
    GenerationTelemetry("poet", 0.0, "accept").end()
    assert list(spans) == []
