"""A start that finds what an earlier one has measured measures nothing, and serves the same."""

from __future__ import annotations

import copy
import logging
import math
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from predictor.engine.engine_settings import EngineSettings
from predictor.measurements import key as key_module
from predictor.measurements.cache import MeasurementCache
from predictor.measurements.key import measurement_key
from predictor.pictures import batch_check, capacity
from predictor.pictures.capacity import plan_pictures
from predictor.plan_command import print_plan
from predictor.text import batch_check as text_check
from predictor.text import capacity as text_capacity
from predictor.text.transformers_engine import TransformersEngine

GIB = 2**30


class Measured(AssertionError):
    pass


def refuse(*_: Any, **__: Any) -> Any:
    raise Measured


@pytest.fixture
def cache(tmp_path: Path) -> MeasurementCache:
    return MeasurementCache([tmp_path], kept_in=[tmp_path])


@pytest.fixture
def own(pipeline: Any) -> Any:
    return copy.copy(pipeline)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Script what is measured of pictures: bytes of each pixel, and that up to `knee` at once are worth it."""

    def script(bytes_of_pixel: int = 10_000, knee: int = 4) -> None:
        monkeypatch.setattr(
            capacity,
            "measure_pictures",
            lambda pipeline, rows, _: (rows + 1) * math.prod(pipeline.sizes.largest) * bytes_of_pixel,
        )
        monkeypatch.setattr(capacity, "time_forward", lambda _, rows: max(1.0, rows / knee))
        monkeypatch.setattr(capacity, "times_of_process", lambda: (1, 0))

    return script


@pytest.fixture
def measure_nothing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse_all() -> None:
        monkeypatch.setattr(capacity, "measure_pictures", refuse)
        monkeypatch.setattr(capacity, "time_forward", refuse)
        monkeypatch.setattr(batch_check, "_why_not_together", refuse)
        monkeypatch.setattr(text_check, "why_not_batched", refuse)
        monkeypatch.setattr(text_capacity, "measure_cost", refuse)

    return refuse_all


# Pictures


def test_slots_and_knee_of_pictures_are_remembered(
    own: Any, cache: MeasurementCache, measuring: Callable[..., None], measure_nothing: Callable[[], None]
) -> None:
    measuring()
    first = plan_pictures(own, 16, 64 * GIB, cache)
    measure_nothing()
    assert plan_pictures(own, 16, 64 * GIB, cache) == first
    assert first.slots == 4


def test_slots_follow_the_memory_of_now(
    own: Any, cache: MeasurementCache, measuring: Callable[..., None], measure_nothing: Callable[[], None]
) -> None:
    measuring()
    plan = plan_pictures(own, 16, 64 * GIB, cache)
    measure_nothing()
    assert plan_pictures(own, 16, plan.cost.memory_for(2) + 1, cache).slots == 2


def test_a_search_that_memory_ended_is_made_again_with_more_of_it(
    own: Any, cache: MeasurementCache, measuring: Callable[..., None], measure_nothing: Callable[[], None]
) -> None:
    measuring(knee=16)
    plan = plan_pictures(own, 16, 64 * GIB)
    assert plan_pictures(own, 16, plan.cost.memory_for(2) + 1, cache).slots == 2
    assert plan_pictures(own, 16, 64 * GIB, cache).slots == 16
    measure_nothing()
    assert plan_pictures(own, 16, 64 * GIB, cache).slots == 16


def test_a_search_that_was_cut_off_is_not_remembered(
    own: Any, cache: MeasurementCache, measuring: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(knee=16)
    with monkeypatch.context() as cut:
        cut.setattr(capacity, "SEARCH_SECONDS", 0)
        assert plan_pictures(own, 16, 64 * GIB, cache).slots == 2
    assert plan_pictures(own, 16, 64 * GIB, cache).slots == 16


def test_a_search_beside_others_is_made_again_once_the_machine_is_quiet(
    own: Any, cache: MeasurementCache, measuring: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(knee=2)
    times = iter([(1_000, 0), (2_000, 101)])
    monkeypatch.setattr(capacity, "times_of_process", lambda: next(times))
    assert plan_pictures(own, 16, 64 * GIB, cache).slots == 2
    measuring(knee=16)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0 * (os.cpu_count() or 1), 0, 0))
    assert plan_pictures(own, 16, 64 * GIB, cache).slots == 2
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0, 0))
    assert plan_pictures(own, 16, 64 * GIB, cache).slots == 16


def test_that_only_the_default_size_fits_is_remembered_for_as_much_memory(
    pipeline: Any, cache: MeasurementCache, measuring: Callable[..., None], measure_nothing: Callable[[], None]
) -> None:
    measuring(bytes_of_pixel=100_000)
    small = copy.copy(pipeline)
    cost = plan_pictures(copy.copy(pipeline), 16, 64 * GIB).cost
    memory = cost.memory_for(1) - 1
    first = plan_pictures(small, 16, memory, cache)
    assert "1024 pixels" in str(first)
    enough = copy.copy(pipeline)
    assert "2048 pixels" in str(plan_pictures(enough, 16, 64 * GIB, cache)), "measured again"
    plan_pictures(copy.copy(pipeline), 16, memory, cache)  # and this again
    measure_nothing()
    again = copy.copy(pipeline)
    assert plan_pictures(again, 16, memory, cache) == first
    assert again.sizes == small.sizes


def test_what_other_settings_ask_for_is_measured(
    own: Any, cache: MeasurementCache, measuring: Callable[..., None], measure_nothing: Callable[[], None]
) -> None:
    measuring()
    plan_pictures(own, 16, 64 * GIB, cache)
    measure_nothing()
    with pytest.raises(Measured):
        plan_pictures(own, 8, 64 * GIB, cache)


def test_another_scheduler_or_guidance_is_measured(
    own: Any, cache: MeasurementCache, measuring: Callable[..., None], measure_nothing: Callable[[], None]
) -> None:
    measuring()
    plan_pictures(own, 16, 64 * GIB, cache)
    measure_nothing()
    other = copy.copy(own)
    other.guidance = 1.5
    with pytest.raises(Measured):
        plan_pictures(other, 16, 64 * GIB, cache)


def test_the_verdict_on_an_unknown_pipeline_is_remembered(
    own: Any, cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batch_check, "COMPARED", set())
    monkeypatch.setattr(batch_check, "_why_not_together", lambda _: "they are mixed up")
    assert batch_check.most_together(own, 4, cache) == 1
    monkeypatch.setattr(batch_check, "_why_not_together", refuse)
    caplog.clear()
    assert batch_check.most_together(own, 4, cache) == 1
    assert "one picture at a time: they are mixed up" in caplog.text


# Texts


def loaded(folder: Path, **settings: Any) -> TransformersEngine:
    engine = TransformersEngine(EngineSettings(model=str(folder), **settings))
    engine.load(lambda _: None)
    engine.close()
    return engine


@pytest.mark.parametrize("obstacle", [None, "it is odd"])
def test_verdict_and_cost_of_texts_are_remembered(
    tiny_model: Path,
    tmp_path: Path,
    measure_nothing: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    obstacle: str | None,
) -> None:
    settings = {"cache_folder": str(tmp_path), "max_concurrency": 3}
    if obstacle:
        monkeypatch.setattr(text_check, "why_not_batched", lambda *_: obstacle)
    first = loaded(tiny_model, **settings)
    measure_nothing()
    caplog.clear()
    second = loaded(tiny_model, **settings)
    for engine in (first, second):
        assert engine.core.batch.slots == (1 if obstacle else 3)
    assert type(first.core.batch) is type(second.core.batch)
    assert first.core.batch.prefill_tokens == second.core.batch.prefill_tokens
    assert first.fingerprint == second.fingerprint
    assert (first.core.warm_up_tokens, second.core.warm_up_tokens) == (2, 1)  # decoding was tried by the first start
    assert (f"cannot be batched: {obstacle}" in caplog.text) == bool(obstacle)


def test_other_weights_lengths_and_code_are_measured(
    tiny_model: Path, tmp_path: Path, measure_nothing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(tiny_model, folder)
    settings = {"cache_folder": str(tmp_path / "cache")}
    loaded(folder, **settings)
    measure_nothing()
    loaded(folder, **settings)
    with pytest.raises(Measured):
        loaded(folder, max_length=100, **settings)
    with monkeypatch.context() as changed:
        changed.setattr(key_module, "_code_digest", lambda: "changed")
        with pytest.raises(Measured):
            loaded(folder, **settings)
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Measured):
        loaded(folder, **settings)


def test_a_key_knows_threads_and_facts() -> None:
    models = {"model": torch.nn.Linear(2, 2)}
    threads = torch.get_num_threads()
    keys = {measurement_key(models, length=1), measurement_key(models, length=2)}
    torch.set_num_threads(threads + 1)
    try:
        keys.add(measurement_key(models, length=1))
    finally:
        torch.set_num_threads(threads)
    assert len(keys) == 3
    assert measurement_key(models, length=1) in keys


# plan --save


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_plan_that_is_saved_goes_with_the_model(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    measure_nothing: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(request.getfixturevalue("tiny_model" if kind == "text" else "tiny_sd"), folder)
    settings: dict[str, Any] = {"steps": 2, "guidance": 3.0} if kind == "image" else {}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    assert print_plan(["--model", str(folder), "--save", *flags]) == 0
    printed = capsys.readouterr().out
    assert "containerConcurrency: " in printed
    for file in (folder / ".shangcai").iterdir():
        assert f"# measured, and kept in {file}\n" in printed
    moved = folder.rename(tmp_path / "moved")
    assert list((moved / ".shangcai").iterdir())
    assert stat.S_IMODE((moved / ".shangcai").stat().st_mode) == 0o755  # a pod reads it as another user
    measure_nothing()
    caplog.set_level(logging.INFO)
    if kind == "text":
        loaded(moved, cache_folder=str(tmp_path / "none"))
    else:
        from predictor.pictures.diffusers_engine import DiffusersEngine

        engine = DiffusersEngine(EngineSettings(model=str(moved), cache_folder=str(tmp_path / "none"), **settings))
        engine.load(lambda _: None)
        engine.close()
    assert f"remembered from {moved / '.shangcai'}" in caplog.text


def test_a_plan_that_took_too_long_to_measure_is_told(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "SEARCH_SECONDS", 0)
    assert print_plan(["--model", str(tiny_sd), "--save", "--cache-folder", str(tmp_path / "cache")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == "predictor: nothing is kept: measuring took too long, as beside other programs"


def test_a_plan_that_cannot_be_saved_is_told_in_one_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert print_plan(["--model", str(tiny_model), "--save", "--cache-folder", str(tmp_path / "file/none")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"predictor: what was measured cannot be kept in {tmp_path}/file/none: Not a directory"
