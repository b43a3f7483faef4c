"""When a predictor is started, and what is known of it."""

from __future__ import annotations

import signal

from scripts.local.model_process import BACK_OFF_SECONDS, LEAVING_SECONDS, TRIES, WAKES, Sleeper


def test_one_that_is_asleep_is_started_by_a_connection_and_gets_ready() -> None:
    sleeper = Sleeper(100)
    assert (sleeper.state, sleeper.since, sleeper.takes_connections(100)) == ("asleep", 100, True)

    sleeper.start(110)
    assert (sleeper.state, sleeper.since, sleeper.phase) == ("waking", 110, "starting")
    assert not sleeper.takes_connections(110)  # those are its own

    sleeper.hear({"STATUS": "importing torch"}, 112)
    assert (sleeper.state, sleeper.since, sleeper.phase) == ("waking", 110, "importing torch")

    sleeper.hear({"READY": "1"}, 114.5)
    assert (sleeper.state, sleeper.since, sleeper.phase) == ("ready", 114.5, None)
    assert list(sleeper.wake_seconds) == [4.5]
    assert not sleeper.takes_connections(200)


def test_one_that_has_left_is_started_again_at_once() -> None:
    sleeper = awake(at=1)
    sleeper.hear({"STOPPING": "1"}, 60)
    assert sleeper.state == "ready"  # connections wait, and the next one is not started beside it
    assert not sleeper.takes_connections(60)

    sleeper.end(0, 61)

    assert (sleeper.state, sleeper.since, sleeper.why) == ("asleep", 61, None)
    assert sleeper.takes_connections(61)


def test_one_that_accepts_nothing_and_does_not_go_is_overdue_after_a_while() -> None:
    sleeper = awake(at=1)
    assert not sleeper.overdue(1000)
    sleeper.hear({"STOPPING": "1"}, 60)
    assert not sleeper.overdue(60 + LEAVING_SECONDS - 1)
    assert sleeper.overdue(60 + LEAVING_SECONDS)

    sleeper.end(-signal.SIGKILL, 100)
    assert not sleeper.overdue(100)
    sleeper.start(101)
    assert not sleeper.overdue(1000)


def test_only_the_latest_wake_ups_are_remembered() -> None:
    sleeper = Sleeper(0)
    for number in range(1, WAKES + 3):
        sleeper.start(0)
        sleeper.hear({"READY": "1"}, number)
        sleeper.end(0, number)

    assert list(sleeper.wake_seconds) == list(range(3, WAKES + 3))


def test_connections_wait_for_the_next_start_after_the_first_that_fail_and_are_refused_after_more() -> None:
    sleeper = Sleeper(0)
    now = 0.0
    for failures in range(1, TRIES):
        fail(sleeper, now)
        assert sleeper.state == "asleep"
        assert not sleeper.refuses(now)
        assert not sleeper.takes_connections(now + BACK_OFF_SECONDS[failures - 1] - 0.1)
        now += BACK_OFF_SECONDS[failures - 1]
        assert sleeper.takes_connections(now)

    fail(sleeper, now)

    assert (sleeper.state, sleeper.since, sleeper.why) == ("failed", now, "the folder holds no model")
    assert sleeper.refuses(now)
    assert sleeper.takes_connections(now)
    now += BACK_OFF_SECONDS[TRIES - 1]
    assert not sleeper.refuses(now)  # but started once more
    assert sleeper.takes_connections(now)


def test_the_back_off_grows_to_a_minute_and_begins_anew_when_all_is_well() -> None:
    sleeper = Sleeper(0)
    now = 0.0
    waits = []
    for _ in range(len(BACK_OFF_SECONDS) + 2):
        fail(sleeper, now)
        waits.append(sleeper.retry_at - now)
        now = sleeper.retry_at
    assert waits == [*BACK_OFF_SECONDS, 60, 60]

    sleeper.start(now)
    sleeper.hear({"READY": "1"}, now)
    assert (sleeper.state, sleeper.why) == ("ready", None)

    sleeper.end(-signal.SIGKILL, now)
    assert (sleeper.state, sleeper.retry_at) == ("asleep", now + BACK_OFF_SECONDS[0])


def test_why_it_came_to_a_bad_end_is_what_it_said_or_how_it_ended() -> None:
    assert fail(Sleeper(0), 0).why == "the folder holds no model"

    sleeper = Sleeper(0)
    sleeper.start(0)
    sleeper.hear({"STATUS": "importing torch"}, 0)
    sleeper.end(-signal.SIGKILL, 0)
    assert sleeper.why == "its predictor was ended by SIGKILL while importing torch"

    sleeper.start(0)
    sleeper.end(3, 0)
    assert sleeper.why == "its predictor ended with status 3 while starting"

    sleeper = awake(at=0)
    sleeper.end(-signal.SIGSEGV, 9)
    assert sleeper.why == "its predictor was ended by SIGSEGV"


def test_one_that_leaves_before_it_was_ready_has_failed() -> None:
    sleeper = Sleeper(0)
    sleeper.start(0)
    sleeper.end(0, 1)
    assert sleeper.why == "its predictor ended with status 0 while starting"
    assert not sleeper.takes_connections(1)  # or it would be started again and again


def test_what_a_start_said_is_not_held_against_the_next() -> None:
    sleeper = fail(Sleeper(0), 0)
    sleeper.start(10)
    sleeper.end(-signal.SIGKILL, 10)
    assert sleeper.why == "its predictor was ended by SIGKILL while starting"


def awake(at: float) -> Sleeper:
    sleeper = Sleeper(at)
    sleeper.start(at)
    sleeper.hear({"READY": "1"}, at)
    return sleeper


def fail(sleeper: Sleeper, now: float) -> Sleeper:
    sleeper.start(now)
    sleeper.hear({"STATUS": "the folder holds no model", "ERRNO": "1"}, now)
    sleeper.end(1, now)
    return sleeper
