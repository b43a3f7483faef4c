"""The states of a model process, and when a connection starts the next one."""

from __future__ import annotations

import signal

from predictor.loading.phases import CONVERTING
from scripts.local.processes.model_process import LEAVING_SECONDS, WAKES, ModelProcess
from scripts.local.processes.start_backoff import BACKOFF_SECONDS, TRIES


def test_a_model_that_is_asleep_is_started_by_a_connection_and_becomes_ready() -> None:
    process = ModelProcess(100)
    assert (process.state, process.since, process.takes_connections(100)) == ("asleep", 100, True)

    process.started(110)
    assert (process.state, process.since, process.phase) == ("waking", 110, "starting")
    assert not process.takes_connections(110)  # the running process accepts them

    process.notified({"STATUS": "importing torch"}, 112)
    assert (process.state, process.since, process.phase) == ("waking", 110, "importing torch")

    process.notified({"READY": "1"}, 114.5)
    assert (process.state, process.since, process.phase) == ("ready", 114.5, None)
    assert list(process.wake_seconds) == [4.5]
    assert not process.takes_connections(200)


def test_how_many_slots_it_has_is_remembered_while_it_sleeps() -> None:
    assert ModelProcess(100).slots is None
    process = ModelProcess(100)
    process.started(100)
    process.notified({"X_SLOTS": "4"}, 101)
    assert process.state == "waking"
    process.notified({"READY": "1"}, 102)
    process.ended(0, 200)
    assert (process.state, process.slots) == ("asleep", 4)


def test_what_only_a_first_start_does_is_not_how_long_the_next_one_takes() -> None:
    process = ModelProcess(100)
    process.started(100)
    process.notified({"STATUS": "importing torch"}, 101)
    for percent, now in (("", 102), (", 25 %", 110), (", 90 %", 120)):
        process.notified({"STATUS": f"{CONVERTING}{percent}"}, now)
    process.notified({"STATUS": "loading the weights"}, 122)
    process.notified({"READY": "1"}, 123)
    assert list(process.wake_seconds) == [3]


def test_a_model_whose_process_left_when_idle_may_start_again_at_once() -> None:
    process = ready(at=1)
    process.notified({"STOPPING": "1"}, 60)
    assert process.state == "ready"  # connections wait: no second process is started beside the first
    assert not process.takes_connections(60)

    process.ended(0, 61)

    assert (process.state, process.since, process.failure) == ("asleep", 61, None)
    assert process.takes_connections(61)


def test_a_process_that_accepts_nothing_and_does_not_end_becomes_overdue() -> None:
    process = ready(at=1)
    assert not process.overdue(1000)
    process.notified({"STOPPING": "1"}, 60)
    assert not process.overdue(60 + LEAVING_SECONDS - 1)
    assert process.overdue(60 + LEAVING_SECONDS)

    process.ended(-signal.SIGKILL, 100)
    assert not process.overdue(100)
    process.started(101)
    assert not process.overdue(1000)


def test_only_the_latest_wake_ups_are_remembered() -> None:
    process = ModelProcess(0)
    for number in range(1, WAKES + 3):
        process.started(0)
        process.notified({"READY": "1"}, number)
        process.ended(0, number)

    assert list(process.wake_seconds) == list(range(3, WAKES + 3))


def test_connections_wait_after_the_first_failed_starts_and_are_refused_after_more() -> None:
    process = ModelProcess(0)
    now = 0.0
    for failures in range(1, TRIES):
        fail(process, now)
        assert process.state == "asleep"
        assert not process.refuses_connections(now)
        assert not process.takes_connections(now + BACKOFF_SECONDS[failures - 1] - 0.1)
        now += BACKOFF_SECONDS[failures - 1]
        assert process.takes_connections(now)

    fail(process, now)

    assert (process.state, process.since, process.failure) == ("failed", now, "the folder holds no model")
    assert process.refuses_connections(now)
    assert process.takes_connections(now)
    now += BACKOFF_SECONDS[TRIES - 1]
    assert not process.refuses_connections(now)  # but started once more
    assert process.takes_connections(now)


def test_the_backoff_grows_to_a_minute_and_starts_over_once_the_model_is_ready() -> None:
    process = ModelProcess(0)
    now = 0.0
    waits = []
    for _ in range(len(BACKOFF_SECONDS) + 2):
        fail(process, now)
        waits.append(process.retry_at - now)
        now = process.retry_at
    assert waits == [*BACKOFF_SECONDS, 60, 60]

    process.started(now)
    process.notified({"READY": "1"}, now)
    assert (process.state, process.failure) == ("ready", None)

    process.ended(-signal.SIGKILL, now)
    assert (process.state, process.retry_at) == ("asleep", now + BACKOFF_SECONDS[0])


def test_the_failure_is_what_the_process_reported_or_how_it_ended() -> None:
    assert fail(ModelProcess(0), 0).failure == "the folder holds no model"

    process = ModelProcess(0)
    process.started(0)
    process.notified({"STATUS": "importing torch"}, 0)
    process.ended(-signal.SIGKILL, 0)
    assert process.failure == "its predictor was ended by SIGKILL while importing torch"

    process.started(0)
    process.ended(3, 0)
    assert process.failure == "its predictor ended with status 3 while starting"

    process = ready(at=0)
    process.ended(-signal.SIGSEGV, 9)
    assert process.failure == "its predictor was ended by SIGSEGV"


def test_a_process_that_exits_before_it_is_ready_has_failed() -> None:
    process = ModelProcess(0)
    process.started(0)
    process.ended(0, 1)
    assert process.failure == "its predictor ended with status 0 while starting"
    assert not process.takes_connections(1)  # or it would be started again and again


def test_a_reported_failure_is_forgotten_at_the_next_start() -> None:
    process = fail(ModelProcess(0), 0)
    process.started(10)
    process.ended(-signal.SIGKILL, 10)
    assert process.failure == "its predictor was ended by SIGKILL while starting"


def ready(at: float) -> ModelProcess:
    process = ModelProcess(at)
    process.started(at)
    process.notified({"READY": "1"}, at)
    return process


def fail(process: ModelProcess, now: float) -> ModelProcess:
    process.started(now)
    process.notified({"STATUS": "the folder holds no model", "ERRNO": "1"}, now)
    process.ended(1, now)
    return process
