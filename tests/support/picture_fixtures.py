"""Fixtures of tests with pictures: tiny pipelines, engines around them, and a server around an engine."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx2
import pytest
from PIL import ImageChops

from contract.problems import ProblemError
from predictor.engine.base import Engine, SleepLevel
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.events import PictureFinished
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task
from predictor.pictures.diffusers_engine import DiffusersEngine
from tests.support import pipelines
from tests.support.engine_cores import PictureHarness
from tests.support.serving import serving
from tests.support.waiting import SECONDS, eventually

if TYPE_CHECKING:
    from predictor.pictures.pipeline import Pipeline


# Pipelines


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[..., Any]], Path]:
    """The folder of what a function makes; each is made once, and takes 4 steps unless asked for more."""
    folders: dict[str, Path] = {}

    def get(make: Callable[..., Any], *arguments: str) -> Path:
        name = "-".join((make.__name__, *arguments))
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            make(*arguments).save_pretrained(folder)
            (folder / "generation_config.json").write_text('{"num_inference_steps": 4}')
            folders[name] = folder
        return folders[name]

    return get


@pytest.fixture(scope="session")
def tiny_sd(folder_of: Any) -> Path:
    return Path(folder_of(pipelines.stable_diffusion))


@pytest.fixture(scope="session")
def tiny_pndm(folder_of: Any) -> Path:
    """Stable Diffusion as its first version came: its scheduler takes one step more than it is asked for."""
    return Path(folder_of(pipelines.stable_diffusion, "PNDMScheduler"))


@pytest.fixture(scope="session")
def tiny_sdxl(folder_of: Any) -> Path:
    return Path(folder_of(pipelines.stable_diffusion_xl))


@pytest.fixture(scope="session")
def tiny_sd3(folder_of: Any) -> Path:
    return Path(folder_of(pipelines.stable_diffusion_3))


@pytest.fixture(scope="session")
def tiny_flux(folder_of: Any) -> Path:
    return Path(folder_of(pipelines.flux))


@pytest.fixture(scope="session")
def pipeline(tiny_sd: Path) -> Pipeline:
    from predictor.pictures.pipeline_loading import load_pipeline

    return load_pipeline(str(tiny_sd), "cpu", "auto", lambda _phase: None)


# Engines


@pytest.fixture
def picture_harness(pipeline: Pipeline) -> Iterator[Callable[..., PictureHarness]]:
    """Makes harnesses of so many slots; they are closed after the test."""
    made: list[PictureHarness] = []

    def make(slots: int = 4, max_waiting: int = 50, of: Pipeline = pipeline) -> PictureHarness:
        made.append(PictureHarness(of, slots, max_waiting))
        return made[-1]

    yield make
    for each in made:
        each.core.close()
        assert each.scheduler.join(SECONDS)


def most_slots(*arguments: Any) -> int:
    """In place of the measured knee: as many as memory holds. What is timed on a busy machine is not what is tested."""
    return int(arguments[-1])


@pytest.fixture(scope="session")
def load_engine() -> Callable[..., DiffusersEngine]:
    """Loads an engine as the server does: on a thread of its own."""

    def load(folder: Path, **settings: Any) -> DiffusersEngine:
        engine = DiffusersEngine(EngineSettings(model=str(folder), **{"max_concurrency": 4} | settings))
        with mock.patch("predictor.pictures.capacity.find_knee", most_slots), ThreadPoolExecutor(1) as thread:
            thread.submit(engine.load, lambda _phase: None).result(SECONDS)
        return engine

    return load


@pytest.fixture
def load(load_engine: Any) -> Iterator[Callable[..., DiffusersEngine]]:
    """`load_engine` whose engines are closed after the test."""
    loaded: list[DiffusersEngine] = []

    def get(folder: Path, **settings: Any) -> DiffusersEngine:
        loaded.append(load_engine(folder, **settings))
        return loaded[-1]

    yield get
    for engine in loaded:
        engine.close()


@pytest.fixture(scope="module")
def painter(tiny_sd: Path, load_engine: Any) -> Iterator[DiffusersEngine]:
    """The tiny Stable Diffusion with four slots, for a module."""
    engine: DiffusersEngine = load_engine(tiny_sd)
    yield engine
    assert engine.alive, "the engine survived every test"
    engine.close()


# What tests look at


@pytest.fixture
def painted() -> Callable[..., Any]:
    """The pictures of generations, in the order of the generations and of their numbers."""

    async def collect(*generations: Generation) -> list[PictureFinished]:
        async with asyncio.timeout(SECONDS):
            return [
                end
                for generation in generations
                for end in sorted(
                    [event async for event in generation if isinstance(event, PictureFinished)],
                    key=lambda one: one.picture,
                )
            ]

    return collect


@pytest.fixture
def problem_of() -> Callable[..., Any]:
    """The problem that a generation ends with."""

    async def wait(generation: Generation) -> ProblemError:
        with pytest.raises(ProblemError) as problem:
            await asyncio.wait_for(
                anext(event async for event in generation if isinstance(event, ProblemError)), SECONDS
            )
        return problem.value

    return wait


@pytest.fixture
def apart() -> Callable[[Any, Any], int]:
    """How far two pictures are apart where they differ most, out of 255."""

    def largest(one: Any, other: Any) -> int:
        assert one.size == other.size
        extrema: Any = ImageChops.difference(one, other).getextrema()
        return int(max(high for _, high in extrema))

    return largest


# Servers


class Lent(Engine):
    """An engine that outlives the server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self, report: Callable[[str], None]) -> None:
        """It is loaded already."""

    @property
    def fingerprint(self) -> str | None:
        return self._engine.fingerprint

    @property
    def max_scheduled(self) -> int | None:
        return self._engine.max_scheduled

    async def submit(self, task: Task) -> Generation:
        return await self._engine.submit(task)

    @property
    def alive(self) -> bool:
        return self._engine.alive

    @property
    def strained(self) -> bool:
        return self._engine.strained

    @property
    def idle(self) -> bool:
        return self._engine.idle

    @property
    def sleeping(self) -> SleepLevel | None:
        return self._engine.sleeping

    @property
    def usual_sleep_level(self) -> SleepLevel:
        return self._engine.usual_sleep_level

    def sleep(self, level: SleepLevel) -> None:
        self._engine.sleep(level)

    def wake_up(self) -> None:
        self._engine.wake_up()

    def close(self) -> None:
        """Not yet."""


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Serves a loaded engine as "painter"; the client to ask it with. The server ends with the test. `subscriber` makes
    one for a model."""
    with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
        from predictor.protocols.kserve_pictures import PictureModel
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            engine: Engine, subscriber: Callable[[Any], Any] | None = None, **settings: Any
        ) -> httpx2.AsyncClient:
            model = PictureModel("painter", Lent(engine), **settings)
            _, url = await stack.enter_async_context(serving(model, subscriber))
            await eventually(lambda: model.startup.ready)
            return await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=SECONDS, verify=False))

        yield start


@pytest.fixture
async def painter_client(painter: DiffusersEngine, serve: Any) -> httpx2.AsyncClient:
    """To the engine of the module."""
    served: httpx2.AsyncClient = await serve(painter)
    return served
