"""A sleeping engine is woken by the next task; no task is lost, and none reaches an engine that is not whole."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from contract.problems import ProblemError
from contract.texts.sampling import Sampling
from predictor.engine.sleep import sleeper as sleeper_module
from predictor.engine.sleep.sleeper import Sleeper
from predictor.engine.tasks import TextTask
from predictor.errors import ModelError
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import eventually


@pytest.fixture
def sleeper(engine: ScriptedEngine) -> Sleeper:
    return Sleeper(engine)


def task(seconds: float | None = None) -> TextTask:
    return TextTask("moon", Sampling(), seconds=seconds)


async def text(sleeper: Sleeper, seconds: float | None = None) -> str:
    return (await (await sleeper.submit(task(seconds))).complete()).text


def state() -> dict[str, float]:
    name = "shangcai_engine_sleep_state"
    return {
        sample.labels["sleep_state"]: sample.value
        for metric in REGISTRY.collect()
        if metric.name == name
        for sample in metric.samples
        if sample.value
    }


async def test_the_next_task_wakes_it(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    await sleeper.sleep()
    assert sleeper.sleeping == 2

    engine.enqueue("moon")
    assert await text(sleeper) == "moon"

    assert sleeper.sleeping is None
    assert (engine.slept, engine.wakes) == ([2], 1)


async def test_its_state_is_a_metric(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    states = [state()]
    await sleeper.sleep(1)
    states.append(state())
    await sleeper.sleep(2)
    states.append(state())
    await sleeper.wake_up()
    states.append(state())

    assert states == [{"awake": 1}, {"weights_offloaded": 1}, {"discard_all": 1}, {"awake": 1}]


async def test_a_level_that_is_not_deeper_changes_nothing(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    await sleeper.sleep(1)
    await sleeper.sleep(1)
    await sleeper.sleep()
    await sleeper.sleep(2)
    await sleeper.sleep(1)
    await sleeper.sleep()

    assert engine.slept == [1, 2]


async def test_the_level_of_the_deployment_is_the_one_without_another(engine: ScriptedEngine) -> None:
    await Sleeper(engine, 1).sleep()

    assert engine.slept == [1]


async def test_tasks_that_come_meanwhile_wait_for_one_wake_up(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    await sleeper.sleep()
    engine.wake_gate.clear()
    for number in range(3):
        engine.enqueue(str(number))
    asked = [asyncio.create_task(text(sleeper)) for _ in range(3)]
    asked_to_wake = asyncio.create_task(sleeper.wake_up())
    await eventually(engine.waking.is_set)
    assert engine.tasks == []

    engine.wake_gate.set()

    assert sorted(await asyncio.gather(*asked)) == ["0", "1", "2"]
    await asked_to_wake
    assert engine.wakes == 1


async def test_what_runs_is_finished_before_it_sleeps(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    gate = asyncio.Event()
    engine.enqueue("mo", gate, "on")
    running = asyncio.create_task(text(sleeper))
    await eventually(lambda: not engine.idle)

    sleeping = asyncio.create_task(sleeper.sleep())
    await eventually(lambda: sleeper.holds)
    engine.enqueue("later")
    held = asyncio.create_task(text(sleeper))
    await asyncio.sleep(0)
    assert engine.slept == []
    gate.set()

    assert await running == "moon"
    await sleeping
    assert await held == "later", "it has woken it again"
    assert (engine.slept, engine.wakes) == ([2], 1)


async def test_what_takes_too_long_keeps_it_awake(
    engine: ScriptedEngine, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleeper_module, "BUSY_SECONDS", 0.05)
    gate = asyncio.Event()
    engine.enqueue("mo", gate, "on")
    running = asyncio.create_task(text(sleeper))
    await eventually(lambda: not engine.idle)

    with pytest.raises(ProblemError, match="mode=abort") as refusal:
        await sleeper.sleep()

    assert refusal.value.kind.slug == "overloaded"
    gate.set()
    assert await running == "moon"
    engine.enqueue("sun")
    assert await text(sleeper) == "sun"
    assert engine.slept == []


async def test_abort_ends_what_runs_with_a_problem(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    engine.enqueue("mo", asyncio.Event())
    running = asyncio.create_task(text(sleeper))
    await eventually(lambda: not engine.idle)

    await sleeper.sleep(abort=True)

    with pytest.raises(ProblemError, match="put to sleep") as problem:
        await running
    assert problem.value.kind.slug == "unavailable"
    assert problem.value.headers == {"Retry-After": "1"}


async def test_a_wake_up_that_fails_is_a_problem_and_is_tried_again(
    engine: ScriptedEngine, sleeper: Sleeper, caplog: pytest.LogCaptureFixture
) -> None:
    await sleeper.sleep()
    engine.wake_errors = [ModelError("cannot load /secret/model: it has gone")]

    answers = await asyncio.gather(text(sleeper), text(sleeper), return_exceptions=True)

    for answer in answers:
        assert isinstance(answer, ProblemError)
        assert answer.kind.slug == "unavailable"
        assert "secret" not in str(answer)
    assert "/secret/model: it has gone" in caplog.text
    assert (sleeper.sleeping, engine.alive) == (2, True)
    engine.enqueue("moon")
    assert await text(sleeper) == "moon"


async def test_a_task_waits_no_longer_than_its_time(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    await sleeper.sleep()
    engine.wake_gate.clear()

    with pytest.raises(ProblemError) as problem:
        await text(sleeper, seconds=0.05)

    assert problem.value.kind.slug == "too-late"
    engine.wake_gate.set()
    engine.enqueue("moon")
    assert await text(sleeper) == "moon"
    assert engine.wakes == 1, "the wake-up went on"


async def test_the_time_that_is_left_is_the_engines(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    await sleeper.sleep()
    engine.enqueue("moon")

    await text(sleeper, seconds=60)

    left = engine.tasks[0].seconds
    assert left is not None
    assert left < 60


async def test_a_client_that_leaves_costs_the_others_nothing(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    await sleeper.sleep()
    engine.wake_gate.clear()
    leaving, staying = (asyncio.create_task(text(sleeper)) for _ in range(2))
    await eventually(engine.waking.is_set)

    leaving.cancel()
    await asyncio.wait({leaving})
    engine.enqueue("moon")
    engine.wake_gate.set()

    assert await staying == "moon"
    assert len(engine.tasks) == 1


async def test_who_asks_for_sleep_and_leaves_does_not_tear_it_open(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    engine.sleep_gate.clear()
    asking = asyncio.create_task(sleeper.sleep())
    await eventually(lambda: sleeper.holds)
    asking.cancel()
    await asyncio.wait({asking})
    engine.enqueue("moon")
    held = asyncio.create_task(text(sleeper))
    await asyncio.sleep(0)
    assert engine.tasks == []

    engine.sleep_gate.set()

    assert await held == "moon"
    assert (engine.slept, engine.wakes) == ([2], 1)


async def test_no_more_are_held_than_have_places(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    engine.max_places = 2
    await sleeper.sleep()
    engine.wake_gate.clear()
    held = [asyncio.create_task(text(sleeper)) for _ in range(2)]
    await eventually(engine.waking.is_set)

    with pytest.raises(ProblemError) as refusal:
        await text(sleeper)

    assert refusal.value.kind.slug == "overloaded"
    engine.enqueue("a")
    engine.enqueue("b")
    engine.wake_gate.set()
    assert sorted(await asyncio.gather(*held)) == ["a", "b"]


async def test_an_engine_that_cannot_sleep_stays_awake(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    engine.sleep_error = MemoryError("no pinned memory")

    with pytest.raises(ProblemError, match="cannot sleep"):
        await sleeper.sleep(1)

    engine.enqueue("moon")
    assert await text(sleeper) == "moon"
    assert engine.wakes == 0


async def test_a_dead_engine_does_not_hide_in_its_sleep(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    engine.is_alive = False
    napping = asyncio.create_task(sleeper.nap(0.001, lambda: True))

    with pytest.raises(ProblemError, match="only a restart helps"):
        await sleeper.sleep()

    napping.cancel()
    assert engine.slept == []


async def test_what_is_held_ends_when_the_server_does(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    await sleeper.sleep()
    engine.wake_gate.clear()
    held = asyncio.create_task(text(sleeper))
    await eventually(engine.waking.is_set)

    sleeper.close()

    with pytest.raises(ProblemError, match="shutting down"):
        await held
    engine.wake_gate.set()


async def test_it_naps_when_nothing_comes_and_not_before(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    ready = threading.Event()
    gate = asyncio.Event()
    engine.enqueue("mo", gate, "on")
    running = asyncio.create_task(text(sleeper))
    napping = asyncio.create_task(sleeper.nap(0.02, ready.is_set))
    await asyncio.sleep(0.1)
    ready.set()
    await asyncio.sleep(0.1)
    assert engine.slept == []

    gate.set()

    assert await running == "moon"
    await eventually(lambda: engine.slept == [2])
    engine.enqueue("sun")
    assert await text(sleeper) == "sun"
    await eventually(lambda: engine.slept == [2, 2], "the next nap")
    napping.cancel()


async def test_a_load_that_takes_longer_is_no_time_without_tasks(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    ready = threading.Event()
    napping = asyncio.create_task(sleeper.nap(0.5, ready.is_set))
    await asyncio.sleep(0.7)  # longer than a nap takes to begin, in which nothing is to happen
    ready.set()
    begun = time.monotonic()
    await eventually(lambda: engine.slept == [2])
    assert time.monotonic() - begun > 0.3
    napping.cancel()


async def test_a_nap_does_not_hold_tasks_until_others_are_finished(
    engine: ScriptedEngine, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    engine.enqueue("mo", gate, "on")
    running = asyncio.create_task(text(sleeper))
    await eventually(lambda: engine.generations)
    monkeypatch.setattr(Sleeper, "idle_s", 10.0)  # as it was just before that task came
    napping = asyncio.create_task(sleeper.nap(0.01, lambda: True))
    for _ in range(5):
        engine.enqueue("sun")
        assert await text(sleeper, seconds=60) == "sun"
        await asyncio.sleep(0.02)
    assert engine.slept == []
    gate.set()
    assert await running == "moon"
    napping.cancel()


async def test_no_task_is_lost_at_the_moment_of_a_nap(engine: ScriptedEngine, sleeper: Sleeper) -> None:
    napping = asyncio.create_task(sleeper.nap(0.001, lambda: True))

    async def ask(times: int, pause: Callable[[int], float]) -> None:
        for number in range(times):
            engine.enqueue("moon")
            assert await text(sleeper, seconds=60) == "moon"
            await asyncio.sleep(pause(number))

    await asyncio.gather(*(ask(40, lambda number, of=of: (number * of % 7) / 200) for of in (1, 2, 3, 5)))  # type: ignore[misc]
    napping.cancel()

    assert len(engine.slept) > 2
    assert len(engine.tasks) == 160


def test_it_needs_no_event_loop_to_be_made(engine: Any) -> None:
    Sleeper(engine)
