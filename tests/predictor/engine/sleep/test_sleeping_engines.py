"""Real engines with tiny models sleep and wake: the same answers, and the memory is given back."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from contract.problems import ProblemError
from contract.request import Painting
from contract.texts.sampling import Sampling
from predictor.engine.base import SleepLevel
from predictor.engine.batched import BatchedEngine
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.sleep import host_weights
from predictor.engine.sleep.sleeper import Sleeper
from predictor.engine.tasks import PictureTask, Task, TextTask
from predictor.errors import ModelError
from predictor.pictures.diffusers_engine import DiffusersEngine
from predictor.text.transformers_engine import TransformersEngine
from tests.support.waiting import eventually

TEXT = TextTask("hello moon", Sampling(max_tokens=24, seed=5, temperature=1.0))
PICTURE = PictureTask("a cat", Painting(seed=5, steps=3))


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy, which a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def texts(folder: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(EngineSettings(model=str(folder), max_waiting=3))
    engine.load(lambda _phase: None)
    yield engine
    engine.close()


@pytest.fixture
def pictures(tiny_sd: Path) -> Iterator[DiffusersEngine]:
    engine = DiffusersEngine(EngineSettings(model=str(tiny_sd)))
    engine.load(lambda _phase: None)
    yield engine
    engine.close()


@pytest.fixture(params=["texts", "pictures"])
def engine(request: pytest.FixtureRequest) -> BatchedEngine[Any]:
    made: BatchedEngine[Any] = request.getfixturevalue(request.param)
    return made


async def answer(engine: BatchedEngine[Any] | Sleeper, task: Task | None = None) -> object:
    """Text or the bytes of a picture, of a seed."""
    texts = isinstance(engine._engine if isinstance(engine, Sleeper) else engine, TransformersEngine)
    generation = await engine.submit(task or (TEXT if texts else PICTURE))
    if texts:
        return (await generation.complete()).text
    [picture], _ = await generation.pictures()
    return picture.picture, picture.image.tobytes()


@pytest.mark.parametrize("level", [1, 2])
async def test_a_seed_gives_the_same_before_and_after(engine: BatchedEngine[Any], level: SleepLevel) -> None:
    expected, fingerprint, most = await answer(engine), engine.fingerprint, engine.max_scheduled

    for _ in range(2):
        await asyncio.to_thread(engine.sleep, level)
        assert (engine.sleeping, engine.alive, engine.idle) == (level, True, True)
        assert (engine.fingerprint, engine.max_scheduled) == (fingerprint, most)
        await asyncio.to_thread(engine.wake_up)
        assert engine.sleeping is None
        assert await answer(engine) == expected

    assert (engine.fingerprint, engine.max_scheduled) == (fingerprint, most)


async def test_previews_are_the_same_after_level_1(pictures: DiffusersEngine) -> None:
    async def preview() -> bytes:
        generation = await pictures.submit(PictureTask("a cat", Painting(seed=5, steps=3), previews=1))
        images = [event.image async for event in generation if hasattr(event, "image") and hasattr(event, "step")]
        return bytes(images[0].tobytes())

    expected = await preview()
    await asyncio.to_thread(pictures.sleep, 1)
    await asyncio.to_thread(pictures.wake_up)

    assert await preview() == expected


def live(kind: type) -> int:
    gc.collect()
    return sum(issubclass(type(each), kind) for each in gc.get_objects())


@pytest.mark.parametrize("level", [1, 2])
async def test_nothing_of_the_batch_is_left_and_of_the_model_what_the_level_says(
    texts: TransformersEngine, level: SleepLevel
) -> None:
    from transformers import LlamaForCausalLM

    from predictor.text.cache.slot_cache import SlotCache

    await answer(texts)
    models, caches = live(LlamaForCausalLM), live(SlotCache)

    await asyncio.to_thread(texts.sleep, level)

    assert live(SlotCache) == caches - 1
    assert live(LlamaForCausalLM) == models - (level == 2)


@pytest.mark.parametrize("levels", [(2,), (1, 2), (1, 1)])
async def test_what_the_start_has_frozen_is_dropped_too(engine: BatchedEngine[Any], levels: tuple[SleepLevel]) -> None:
    """As Startup does, so that no collection searches what imports have made."""
    await answer(engine)
    gc.freeze()
    try:
        core = weakref.ref(engine.core)
        texts = isinstance(engine, TransformersEngine)
        model = weakref.ref(engine.core.checkpoint.model if texts else engine.core.pipeline.denoiser)
        for level in levels:
            await asyncio.to_thread(engine.sleep, level)
            assert core() is None
            assert (model() is None) == (level == 2)
            await asyncio.to_thread(engine.wake_up)
        assert gc.get_freeze_count() > 100_000, "what is still there is frozen again"
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("changed", [False, True])
async def test_the_tokenizer_is_kept_unless_its_files_have_changed(
    texts: TransformersEngine, folder: Path, changed: bool
) -> None:
    before = texts.core.checkpoint.tokenizer
    await asyncio.to_thread(texts.sleep, 2)
    if changed:
        (folder / "tokenizer.json").touch()
    await asyncio.to_thread(texts.wake_up)
    assert (texts.core.checkpoint.tokenizer is before) == (not changed)
    assert await answer(texts)


async def test_from_level_1_it_falls_to_level_2(texts: TransformersEngine) -> None:
    from transformers import LlamaForCausalLM

    expected, models = await answer(texts), live(LlamaForCausalLM)
    for level in (1, 2, 1):
        await asyncio.to_thread(texts.sleep, level)

    assert texts.sleeping == 2
    assert live(LlamaForCausalLM) == models - 1
    await asyncio.to_thread(texts.wake_up)
    assert await answer(texts) == expected


async def test_weights_of_a_device_wait_on_the_host(
    engine: BatchedEngine[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the host's memory stands for the device's."""
    monkeypatch.setattr(host_weights, "on_device", lambda _tensor: True)
    expected, fingerprint = await answer(engine), engine.fingerprint

    for _ in range(2):
        await asyncio.to_thread(engine.sleep, 1)
        await asyncio.to_thread(engine.wake_up)

    assert await answer(engine) == expected
    assert engine.fingerprint == fingerprint


async def test_where_the_host_has_no_room_it_stays_awake(
    texts: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await answer(texts)

    def fail(*_: Any) -> None:
        raise MemoryError("no pinned memory")

    monkeypatch.setattr(host_weights.HostWeights, "offload", fail)
    with pytest.raises(MemoryError):
        await asyncio.to_thread(texts.sleep, 1)

    assert (texts.sleeping, texts.alive) == (None, True)
    assert await answer(texts) == expected


async def test_a_device_without_memory_for_them_is_tried_again(
    texts: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await answer(texts)
    await asyncio.to_thread(texts.sleep, 1)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as scarcity:
        scarcity.setattr(host_weights.HostWeights, "restore", fail)
        with pytest.raises(ModelError, match="out of memory"):
            await asyncio.to_thread(texts.wake_up)
    assert (texts.sleeping, texts.alive) == (1, True), "another process may give it back"

    await asyncio.to_thread(texts.wake_up)
    assert await answer(texts) == expected


async def test_one_that_wakes_only_in_part_sleeps_as_before(
    texts: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await answer(texts)
    await asyncio.to_thread(texts.sleep, 1)
    moves: list[str] = []
    monkeypatch.setattr(host_weights.HostWeights, "offload", lambda _, models: moves.append(f"{len(models)} offloaded"))
    monkeypatch.setattr(host_weights.HostWeights, "restore", lambda _: moves.append("restored"))
    with monkeypatch.context() as scarcity:
        scarcity.setattr(texts, "_start", mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
        with pytest.raises(ModelError, match="out of memory"):
            await asyncio.to_thread(texts.wake_up)
    assert moves == ["restored", "1 offloaded"]
    assert texts.sleeping == 1

    await asyncio.to_thread(texts.wake_up)
    assert await answer(texts) == expected


async def test_a_broken_device_is_not_alive(texts: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.to_thread(texts.sleep, 1)

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(host_weights.HostWeights, "restore", fail)
    with pytest.raises(ModelError):
        await asyncio.to_thread(texts.wake_up)

    assert not texts.alive


async def test_weights_that_have_gone_are_a_problem_until_they_are_back(
    texts: TransformersEngine, folder: Path, tmp_path: Path
) -> None:
    expected, sleeper = await answer(texts), Sleeper(texts)
    await sleeper.sleep(2)
    await asyncio.to_thread(folder.rename, tmp_path / "elsewhere")

    with pytest.raises(ProblemError) as problem:
        await sleeper.submit(TEXT)
    assert problem.value.kind.slug == "unavailable"
    assert str(folder) not in str(problem.value)
    assert (texts.sleeping, texts.alive) == (2, True)

    await asyncio.to_thread((tmp_path / "elsewhere").rename, folder)
    assert await answer(sleeper) == expected


async def test_requests_during_naps_are_all_answered_alike(texts: TransformersEngine) -> None:
    expected, sleeper = await answer(texts), Sleeper(texts)
    sleeps = mock.Mock(wraps=texts.sleep)
    napping = asyncio.create_task(sleeper.nap(0.001, lambda: True))

    async def ask(client: int) -> None:
        for number in range(6):
            assert await answer(sleeper) == expected
            await asyncio.sleep((number * client % 4) / 50)

    with mock.patch.object(texts, "sleep", sleeps):
        await asyncio.gather(*(ask(client) for client in (1, 2, 3)))
        await eventually(lambda: texts.sleeping == 2)
    napping.cancel()

    assert sleeps.call_count > 1


async def test_waking_measures_nothing_anew(engine: BatchedEngine[Any]) -> None:
    """Though no folder keeps what the start has measured."""
    assert engine.settings.cache_folder == ""
    await asyncio.to_thread(engine.sleep, 2)
    with (
        mock.patch("predictor.text.batch_check.why_not_batched", side_effect=AssertionError),
        mock.patch("predictor.pictures.capacity.find_knee", side_effect=AssertionError),
    ):
        await asyncio.to_thread(engine.wake_up)


async def test_waking_imports_nothing(engine: BatchedEngine[Any]) -> None:
    await answer(engine)
    await asyncio.to_thread(engine.sleep, 2)
    before = set(sys.modules)

    await asyncio.to_thread(engine.wake_up)

    assert set(sys.modules) - before == set()


async def test_closed_while_it_sleeps_it_ends_when_it_wakes(texts: TransformersEngine) -> None:
    await asyncio.to_thread(texts.sleep, 2)
    texts.close()
    await asyncio.to_thread(texts.wake_up)

    await eventually(lambda: not texts.alive, "the end of the thread")


async def test_abort_ends_what_runs(texts: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = Sleeper(texts)
    begun = asyncio.Event()
    generation = await sleeper.submit(TextTask("moon", Sampling(max_tokens=200, seed=1, temperature=0.0)))

    async def read(listener: Callable[[Any], None]) -> None:
        await generation.complete(listener)

    reading = asyncio.create_task(read(lambda _event: begun.set()))
    await begun.wait()
    await sleeper.sleep(2, abort=True)

    with pytest.raises(ProblemError, match="put to sleep"):
        await reading
    assert texts.sleeping == 2
