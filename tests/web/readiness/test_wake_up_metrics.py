"""Wake-ups are counted, and their seconds by phase, as what is observed of a model changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contract import ModelStatus, ProblemError, problems
from tests.support.web.samples import Sample
from web.readiness.model_readiness import Readiness
from web.readiness.states_file import StatesFile
from web.readiness.wake_up_metrics import WakeUpMetrics


class Clock:
    """In place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class WakeUps:
    """A model whose metrics begin at 0 for each test."""

    def __init__(self, clock: Clock, model: str) -> None:
        self.clock = clock
        self.readiness = Readiness(model, "text", 60, 600, StatesFile(Path("/nowhere")))
        self.metrics = WakeUpMetrics(self.readiness)
        self.model = model

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def loads(self, phase: str, seconds: float | None = None, expected: float | None = None) -> None:
        """Its server has answered that it is loading."""
        error = ProblemError(problems.LOADING, "Yes.", phase=phase, seconds=seconds, expected_seconds=expected)
        self.readiness.failed(error, self.clock.now)

    def value(self, name: str, **labels: str) -> float:
        return Sample(name, model=self.model, **labels).value

    @property
    def outcomes(self) -> tuple[float, float]:
        return tuple(self.value("wake_ups_total", outcome=outcome) for outcome in ("ready", "failed"))  # type: ignore[return-value]

    def phase(self, name: str) -> float:
        return self.value("wake_up_phase_seconds_total", phase=name)

    @property
    def state(self) -> list[str]:
        states = ("asleep", "waking", "ready", "pending", "unknown")
        return [state for state in states if self.value("model_state", state=state) == 1]


@pytest.fixture
def wake_ups(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., WakeUps]:
    clock = Clock()
    for module in ("model_readiness", "wake_up_metrics"):
        monkeypatch.setattr(f"web.readiness.{module}.time", clock)
    return lambda name="": WakeUps(clock, request.node.name + name)


def test_the_seconds_of_the_phases_are_those_of_the_wake_up(wake_ups: Callable[..., WakeUps]) -> None:
    model = wake_ups()
    assert (model.state, model.outcomes) == (["unknown"], (0, 0))
    model.readiness.wakes(model.clock.now)
    assert model.state == ["waking"]
    model.wait(4)
    model.loads("importing")
    model.wait(2)
    model.loads("importing")
    model.wait(1)
    model.loads("reading the weights")
    model.wait(5)
    assert model.outcomes == (0, 0)
    model.readiness.answered()
    assert (model.state, model.outcomes) == (["ready"], (1, 0))
    assert [model.phase(name) for name in ("scheduling", "importing", "reading the weights")] == [4, 3, 5]
    assert model.value("wake_up_seconds_sum") == model.value("wake_up_last_seconds") == 12
    assert model.value("wake_up_seconds_count") == 1
    assert model.value("wake_up_expected_seconds") == 0  # nobody knew


def test_what_the_server_says_of_the_time_before_counts_as_scheduling(wake_ups: Callable[..., WakeUps]) -> None:
    model = wake_ups()
    model.readiness.wakes(model.clock.now)
    model.wait(1)
    model.loads("warm-up", seconds=9, expected=10)
    model.wait(2)
    model.readiness.answered()
    assert model.value("wake_up_expected_seconds") == 10
    assert (model.phase("scheduling"), model.phase("warm-up")) == (9, 2)
    assert model.value("wake_up_seconds_sum") == 11


def test_the_next_one_is_expected_to_be_like_those_before(wake_ups: Callable[..., WakeUps]) -> None:
    model = wake_ups()
    for seconds in (10, 20):
        model.readiness.wakes(model.clock.now)
        model.wait(seconds)
        model.readiness.answered()
        model.wait(100)
    assert (model.value("wake_up_expected_seconds"), model.value("wake_up_last_seconds")) == (10, 20)
    model.loads("importing", expected=40)
    model.wait(30)
    model.readiness.answered()
    assert (model.value("wake_up_expected_seconds"), model.value("wake_up_last_seconds")) == (15, 30)
    assert model.outcomes == (3, 0)


def test_a_wake_up_that_fails_took_nothing(wake_ups: Callable[..., WakeUps]) -> None:
    model = wake_ups()
    model.readiness.wakes(model.clock.now)
    model.wait(5)
    model.readiness.lost()
    assert (model.state, model.outcomes) == (["unknown"], (0, 1))
    model.readiness.answered()
    model.readiness.lost()
    assert model.outcomes == (0, 1)
    assert (model.value("wake_up_seconds_count"), model.phase("scheduling")) == (0, 0)


def test_one_that_is_given_up_has_failed(wake_ups: Callable[..., WakeUps]) -> None:
    model = wake_ups()
    model.readiness.wakes(model.clock.now)
    model.wait(601)
    model.metrics.show()
    model.metrics.show()
    assert model.outcomes == (0, 1)
    model.readiness.wakes(model.clock.now)
    model.wait(3)
    model.readiness.answered()
    assert (model.outcomes, model.value("wake_up_seconds_sum")) == ((1, 1), 3)


def test_one_that_another_one_follows_has_failed(wake_ups: Callable[..., WakeUps]) -> None:
    model = wake_ups()
    model.readiness.wakes(model.clock.now)
    model.wait(700)
    model.readiness.wakes(model.clock.now)
    model.wait(3)
    model.readiness.answered()
    assert (model.outcomes, model.value("wake_up_seconds_sum")) == ((1, 1), 3)


def test_a_model_that_was_awake_has_not_woken_up(wake_ups: Callable[..., WakeUps]) -> None:
    model, other = wake_ups(), wake_ups("another")
    model.readiness.answered()
    model.wait(61)
    assert model.state == ["ready"]  # as it was when it was shown
    model.metrics.show()
    assert (model.state, model.outcomes) == (["asleep"], (0, 0))
    other.readiness.wakes(other.clock.now)
    other.readiness.answered()
    assert (model.outcomes, other.outcomes) == ((0, 0), (1, 0))


def test_what_another_replica_has_seen_counts_here_too(wake_ups: Callable[..., WakeUps]) -> None:
    model = wake_ups()
    told = ModelStatus(name=model.model, kind="text", state="waking", phase="importing", seconds=6, expected_seconds=9)
    model.readiness.receive(told)
    model.wait(2)
    model.readiness.receive(ModelStatus(name=model.model, kind="text", state="ready"))
    assert (model.outcomes, model.value("wake_up_seconds_sum")) == ((1, 0), 8)
    assert (model.phase("scheduling"), model.phase("importing")) == (6, 2)
    assert model.value("wake_up_expected_seconds") == 9
