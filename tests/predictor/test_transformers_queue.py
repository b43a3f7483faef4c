"""The real engine's slot and queue: closing, refusing, failing, ending."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from contract.problems import ProblemError
from contract.request import Sampling
from predictor.engine import Completion, Finished, TextTask, Token
from predictor.transformers_engine import STALL_SECONDS, TransformersEngine
from predictor.writer import Writer

pytestmark = pytest.mark.slow


async def write(engine: TransformersEngine, prompt: str = "moon", **sampling: Any) -> Completion:
    return await (await engine.submit(TextTask(prompt, Sampling(**{"max_tokens": 20} | sampling)))).complete()


async def test_closing_ends_a_generation_within_a_token(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    steps: list[bool] = []
    put = Writer.put

    def recording(self: Writer, ids: Any) -> None:
        steps.append(self._job.generation.closed)
        put(self, ids)

    monkeypatch.setattr(Writer, "put", recording)
    generation = await loaded.submit(TextTask("moon", Sampling(max_tokens=250, temperature=0.0)))
    async for event in generation:
        if isinstance(event, Token):
            break

    generation.close()
    after = await write(loaded, "hello", max_tokens=1)

    assert after.end.completion_tokens == 1
    assert len(steps) < 250
    assert sum(steps) <= 1, "tokens computed for nobody"


async def test_a_full_queue_refuses_with_the_time_to_come_back_and_leavers_make_room(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, entered = Event(), Event()
    generate = loaded._generate

    def held(job: Any) -> Finished:
        entered.set()
        assert gate.wait(60)
        return generate(job)

    monkeypatch.setattr(loaded, "_generate", held)
    task = TextTask("moon", Sampling(max_tokens=1))
    running = await loaded.submit(task)
    await asyncio.to_thread(entered.wait, 60)
    waiting = [await loaded.submit(task) for _ in range(3)]

    with pytest.raises(ProblemError) as refused:
        await loaded.submit(task)
    assert refused.value.document["type"] == "urn:shangcai:problem:overloaded"
    assert int(refused.value.headers["Retry-After"]) >= 1

    waiting[1].close()
    late = await loaded.submit(task)
    gate.set()
    for generation in (running, waiting[0], waiting[2], late):
        assert (await generation.complete()).end.completion_tokens == 1


async def test_a_generation_that_raises_does_not_end_the_engine(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: secret address")

    with monkeypatch.context() as patch:
        patch.setattr(loaded.model, "generate", broken)
        with pytest.raises(ProblemError) as failed:
            await write(loaded)

    assert failed.value.kind.status == 500
    assert "secret" not in str(failed.value.document)
    assert "secret address" in caplog.text
    assert loaded.alive
    assert (await write(loaded)).end.completion_tokens > 0


async def test_many_at_once_are_encoded_and_answered(tiny_model: Path) -> None:
    engine = TransformersEngine(str(tiny_model), max_waiting=100)
    await asyncio.to_thread(engine.load, lambda _phase: None)
    alone = await write(engine, seed=1, max_tokens=3)

    together = await asyncio.gather(*(write(engine, seed=1, max_tokens=3) for _ in range(80)))

    assert {completion.text for completion in together} == {alone.text}
    engine.close()


async def test_closing_the_engine_ends_what_is_still_waiting(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(str(tiny_model))
    await asyncio.to_thread(engine.load, lambda _phase: None)
    gate, entered = Event(), Event()
    generate = engine._generate

    def held(job: Any) -> Finished:
        entered.set()
        assert gate.wait(60)
        return generate(job)

    monkeypatch.setattr(engine, "_generate", held)
    running, waiting = [await engine.submit(TextTask("moon", Sampling(max_tokens=1))) for _ in range(2)]
    await asyncio.to_thread(entered.wait, 60)

    engine.close()
    gate.set()

    assert (await running.complete()).end.completion_tokens == 1
    with pytest.raises(ProblemError, match="shutting down"):
        await waiting.complete()


def test_loading_names_its_phases(tiny_model: Path) -> None:
    phases: list[str] = []
    engine = TransformersEngine(str(tiny_model))
    assert not engine.alive

    engine.load(phases.append)

    assert phases == [
        "importing torch",
        "importing transformers",
        "loading the tokenizer",
        "loading the weights",
        "warming up",
    ]
    assert engine.alive
    engine.close()


def test_a_step_that_takes_too_long_is_a_dead_engine(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "_beat_at", time.perf_counter() - STALL_SECONDS + 1)
    assert loaded.alive

    monkeypatch.setattr(loaded, "_beat_at", time.perf_counter() - STALL_SECONDS - 1)
    assert not loaded.alive
