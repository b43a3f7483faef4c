"""The phases of a generation in the predictor, by its events."""

from __future__ import annotations

import asyncio

import pytest

from contract import ProblemError, problems
from contract.texts.sampling import Sampling
from predictor.engine.events import PictureFinished, Progress, Reasoning, Started, TextFinished, Token
from predictor.engine.tasks import TextTask
from predictor.protocols.kserve_text import TextModel
from predictor.telemetry.generation_phases import GenerationPhases
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import eventually
from wire.telemetry.facts import Facts, gathered


@pytest.fixture
async def model() -> TextModel:
    engine = ScriptedEngine()
    engine.load_gate.set()
    model = TextModel("poet", engine)
    model.start_loading(lambda: None)
    await eventually(lambda: model.startup.ready)
    return model


def test_a_text_is_queued_then_read_then_written() -> None:
    with gathered(Facts("r1")) as facts:
        phases = GenerationPhases("poet", "kitchen")
        phases.enter("queue")
        for event in (Started(0.0), Reasoning("hm"), Token("春"), TextFinished("stop", 3, 2)):
            phases.note(event)
        phases.end()
    assert list(phases.phases) == ["accept", "queue", "prefill", "decode", "deliver"]
    assert (facts.prompt_tokens, facts.completion_tokens, facts.problem) == (3, 2, None)
    assert facts.caller == "kitchen"
    assert facts.first_token_seconds is not None
    assert sum(facts.phases.values()) == pytest.approx(phases.seconds)


def test_of_several_pictures_the_last_one_is_the_end() -> None:
    picture = PictureFinished.__new__(PictureFinished)
    phases = GenerationPhases("painter", "kitchen")
    phases.parts = 2
    phases.enter("queue")
    for event in (Started(0.0), Started(0.1), Progress(0, 1, 2), picture):
        phases.note(event)
    assert phases.phase == "denoise"
    phases.note(picture)
    assert phases.phase == "deliver"


def test_a_problem_is_its_end() -> None:
    with gathered(Facts("r1")) as facts:
        phases = GenerationPhases("poet", "kitchen")
        phases.note(ProblemError(problems.TOO_LATE, "late"))
    assert facts.problem == "too-late"


async def test_a_generation_tells_its_phases(model: TextModel) -> None:
    engine = model._engine
    assert isinstance(engine, ScriptedEngine)
    engine.enqueue("春", "天")
    with gathered(Facts("r1")) as facts:
        generation = await model.submit(TextTask("雨", Sampling()), {})
        await generation.complete()
    assert list(facts.phases) == ["accept", "queue", "prefill", "decode", "deliver"]
    assert facts.model == "poet"


async def test_one_that_is_refused_has_the_phases_so_far(model: TextModel) -> None:
    engine = model._engine
    assert isinstance(engine, ScriptedEngine)
    engine.refuse(ProblemError(problems.OVERLOADED, "full", retry_after=1))
    with gathered(Facts("r1")) as facts, pytest.raises(ProblemError):
        await model.submit(TextTask("雨", Sampling()), {})
    assert list(facts.phases) == ["accept", "queue"]
    assert facts.problem == "overloaded"


async def test_one_that_wakes_its_model_has_a_phase_of_that(model: TextModel) -> None:
    engine = model._engine
    assert isinstance(engine, ScriptedEngine)
    engine.enqueue("春")
    await model.sleeper.sleep(1)
    engine.wake_gate.clear()
    with gathered(Facts("r1")) as facts:
        submitting = asyncio.create_task(model.submit(TextTask("雨", Sampling()), {}))
        await eventually(engine.waking.is_set)
        engine.wake_gate.set()
        await (await submitting).complete()
    assert list(facts.phases) == ["accept", "wake", "queue", "prefill", "decode", "deliver"]
