"""scripts/run, for one test or for all of a module; and a predictor whose engine says what a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest

from predictor.events.subscriber import EventSubscriber
from tests.support.run import Run, Start
from tests.support.scripted_engine import ScriptedEngine
from tests.support.serving import serving
from tests.support.waiting import eventually


@pytest.fixture
def start() -> Iterator[Start]:
    """Start any number of `scripts/run`; all are ended with the test."""
    runs: list[Run] = []

    def begin(*flags: str, port: int | None = None) -> Run:
        runs.append(Run(*flags, port=port))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Run]:
    """The poet and the painter, served to all tests of a module."""
    with closing(Run()) as run:
        run.wait_until_ready()
        yield run


@pytest.fixture
def engine() -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.load_gate.set()
    return engine


@pytest.fixture
async def predictor(engine: ScriptedEngine) -> AsyncIterator[str]:
    from predictor.protocols.kserve_text import TextModel

    model = TextModel("poet", engine)
    async with serving(model, EventSubscriber) as (_, url):
        await eventually(lambda: model.startup.ready)
        yield url
