"""The state machine of a model's readiness: every transition from every state, without a clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from contract import ModelStatus
from web.readiness.state import WAKE_UPS, ReadinessState, WakeUp
from web.readiness.states_file import ReportedState

NOW = 1_000.0
IDLE = 60.0
WAKE = 600.0
NEW = ReadinessState(IDLE, WAKE)

FROM = {
    "unknown": NEW,
    "asleep": NEW.answered(NOW - IDLE - 40),
    "waking": NEW.waking(NOW - 5, NOW - 10, "reading"),
    "ready": NEW.answered(NOW - 30),
}
"""One of each state at NOW."""


def received(state: Any) -> Callable[[ReadinessState], ReadinessState]:
    status = ModelStatus(name="poet", kind="text", state=state, phase="reading" if state == "waking" else None)
    return lambda before: before.received(status, NOW)


TRANSITIONS: dict[str, Callable[[ReadinessState], ReadinessState]] = {
    "answered": lambda before: before.answered(NOW),
    "waking": lambda before: before.waking(NOW, NOW),
    "the same phase": lambda before: before.waking(NOW, NOW, "reading"),
    "another phase": lambda before: before.waking(NOW, NOW, "warming up"),
    "lost": lambda before: before.lost(),
    "received unknown": received("unknown"),
    "received asleep": received("asleep"),
    "received waking": received("waking"),
    "received ready": received("ready"),
}

TABLE = """
                 | unknown  | asleep  | waking   | ready
answered         | ready!   | ready!  | ready!   | ready
waking           | waking!  | waking! | waking   | waking!
the same phase   | waking!  | waking! | waking   | waking!
another phase    | waking!  | waking! | waking!  | waking!
lost             | unknown! | unknown!| unknown! | unknown!
received unknown | unknown  | asleep  | unknown! | ready
received asleep  | unknown  | asleep  | waking   | ready
received waking  | waking!  | waking! | waking   | ready
received ready   | ready!   | ready!  | ready!   | ready
"""
"""What becomes of each state; ! where others are notified."""

_, HEADER, *ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.splitlines()]


@pytest.mark.parametrize(
    ("before", "transition", "after"),
    [(name, row[0], cell) for row in ROWS for name, cell in zip(HEADER[1:], row[1:], strict=True)],
)
def test_transitions(before: str, transition: str, after: str) -> None:
    old = FROM[before]
    assert old.at(NOW) == before
    new = TRANSITIONS[transition](old)
    assert new.at(NOW) == after.removesuffix("!")
    assert new.revision - old.revision == after.count("!")


def test_the_table_has_every_transition() -> None:
    assert [row[0] for row in ROWS] == list(TRANSITIONS)
    assert HEADER[1:] == list(FROM)


# With time


def test_a_model_falls_asleep_an_idle_window_after_its_last_answer() -> None:
    state = NEW.answered(NOW)
    assert (state.at(NOW + IDLE), state.at(NOW + IDLE + 0.1)) == ("ready", "asleep")
    assert (state.since(NOW + 1), state.since(NOW + IDLE + 1)) == (NOW, NOW)


def test_a_model_that_never_sleeps_stays_ready() -> None:
    assert ReadinessState(math.inf, WAKE).answered(NOW).at(NOW + 1e9) == "ready"


def test_a_model_is_ready_while_it_answers_anything() -> None:
    state = NEW.answered(NOW).answer_begun().answer_begun()
    assert state.at(NOW + 1_000) == "ready"
    state = state.answer_ended(NOW + 1_000)
    assert state.at(NOW + 2_000) == "ready"
    state = state.answer_ended(NOW + 2_000)
    assert (state.at(NOW + 2_000 + IDLE), state.at(NOW + 2_001 + IDLE)) == ("ready", "asleep")


def test_the_end_of_an_answer_is_none_where_another_has_broken_off() -> None:
    state = NEW.answered(NOW).answer_begun().answer_begun().lost()
    assert state.answer_ended(NOW + 1).at(NOW + 1) == "unknown"


def test_being_ready_began_with_the_first_answer() -> None:
    state = NEW.answered(NOW).answered(NOW + 10)
    assert state.since(NOW + 11) == NOW


@pytest.mark.parametrize(("before", "after"), [(NEW, "unknown"), (FROM["asleep"], "asleep")])
def test_a_wake_up_that_is_not_observed_any_more_is_given_up(before: ReadinessState, after: str) -> None:
    state = before.waking(NOW, NOW)
    assert (state.at(NOW + WAKE), state.at(NOW + WAKE + 1)) == ("waking", after)


# A wake-up


def test_a_wake_up_only_becomes_longer() -> None:
    state = NEW.waking(NOW, NOW - 1)
    for since, seconds, expected in ((NOW - 3, None, NOW - 3), (NOW, 2.0, NOW - 3), (NOW, 5.0, NOW - 5)):
        state = state.waking(NOW, since, None, seconds)
        assert state.since(NOW) == expected


def test_a_wake_up_that_was_given_up_does_not_make_the_next_one_longer() -> None:
    state = NEW.waking(NOW, NOW)
    later = NOW + WAKE + 1
    assert state.waking(later, later).since(later) == later


def test_a_phase_stays_until_there_is_another() -> None:
    state = NEW.waking(NOW, NOW, "reading").waking(NOW, NOW)
    assert state.phase == "reading"
    assert state.waking(NOW, NOW, "warming up").phase == "warming up"
    assert state.answered(NOW).phase is None


def test_the_next_wake_up_is_expected_to_be_as_the_last_ones_in_the_middle() -> None:
    state = NEW
    assert state.expected_seconds is None
    for seconds in (500, 100, 4, 2, 3, 6):
        state = state.waking(NOW, NOW - seconds).answered(NOW)
    assert state.past_wake_ups == (100, 4, 2, 3, 6)
    assert len(state.past_wake_ups) == WAKE_UPS
    assert state.expected_seconds == 4
    assert state.lost().expected_seconds == 4


def test_what_a_model_server_expects_counts_until_a_wake_up_was_seen() -> None:
    state = NEW.waking(NOW, NOW, expected_seconds=7.0).waking(NOW, NOW)
    assert state.expected_seconds == 7.0
    assert state.waking(NOW, NOW - 3).answered(NOW).expected_seconds == 3


# The supervisor's report


@pytest.mark.parametrize(
    ("reported", "expected"), [("asleep", "asleep"), ("waking", "waking"), ("ready", "ready"), ("failed", "unknown")]
)
@pytest.mark.parametrize("before", [state for name, state in FROM.items() if name != "waking"])
def test_a_report_counts_more_than_answers(before: ReadinessState, reported: Any, expected: str) -> None:
    assert before.reported(ReportedState(state=reported, since=1)).at(NOW) == expected


def test_a_wake_up_that_is_observed_counts_more_than_a_report() -> None:
    state = FROM["waking"].reported(ReportedState(state="asleep", since=1))
    assert state.at(NOW) == "waking"
    assert (state.at(NOW + WAKE), state.wake_up) == ("asleep", WakeUp(NOW - 10, NOW - 5, "reading"))
    assert state.reported(None).at(NOW) == "waking"


def test_a_report_knows_the_phase_and_the_past_wake_ups() -> None:
    report = ReportedState(state="waking", since=1, phase="importing", wake_seconds=[100, 4, 2, 3, 6, 5])
    state = FROM["waking"].reported(report)
    assert (state.phase, state.expected_seconds) == ("importing", 4)
    assert state.reported(report.model_copy(update={"phase": None})).phase == "reading"
