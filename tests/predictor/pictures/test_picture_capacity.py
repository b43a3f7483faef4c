"""How many slots: the smallest of what memory holds, what pays and what is allowed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.problems import ProblemError
from predictor.engine.memory.slot_plan import MARGIN, PROCESS_BYTES
from predictor.errors import ModelError
from predictor.pictures import capacity as picture_capacity
from predictor.pictures.capacity import LEAST_PIXEL_BYTES, plan_pictures
from predictor.pictures.model_defaults import NO_DEFAULTS
from predictor.pictures.pipeline import Pipeline

pytestmark = pytest.mark.slow

GIB = 2**30
SLOT = 100 * 2**20


@pytest.fixture
def pipeline(pipeline: Any) -> Any:
    """Its own of each test: what fits decides which sizes it serves."""
    return copy.copy(pipeline)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Script what is measured: `seconds` of a forward of so many rows, and SLOT bytes of each of the default size. The
    rows that were tried."""

    def script(seconds: Callable[[int], float], holds: int = 1_000) -> list[int]:
        tried: list[int] = []

        def run(rows: int) -> int:
            tried.append(rows)
            if rows > holds:
                raise torch.OutOfMemoryError("no memory")
            return rows

        def bytes_of(pipeline: Any, rows: int, _prompt: str) -> int:
            return int((run(rows) + 1) * SLOT * math.prod(pipeline.sizes.largest) / math.prod(pipeline.sizes.default))

        monkeypatch.setattr(picture_capacity, "measure_pictures", bytes_of)
        monkeypatch.setattr(picture_capacity, "time_forward", lambda _pipeline, rows: seconds(run(rows)))
        return tried

    return script


def flat(_rows: int) -> float:
    """As long as one alone: batching is free."""
    return 1.0


def linear(rows: int) -> float:
    """Batching is worth nothing."""
    return float(rows)


def knee_at(knee: int) -> Callable[[int], float]:
    return lambda rows: max(1.0, rows / knee)


@pytest.mark.parametrize(
    ("seconds", "most", "slots"),
    [
        (flat, 16, 16),
        (flat, 6, 6),
        (flat, 3, 3),
        (flat, 1, 1),
        (linear, 16, 1),
        (knee_at(2), 16, 2),
        (knee_at(4), 16, 4),
        (knee_at(8), 16, 8),
        (knee_at(8), 4, 4),
    ],
)
def test_no_more_than_pays_and_no_more_than_is_allowed(
    pipeline: Any, measured: Any, seconds: Callable[[int], float], most: int, slots: int
) -> None:
    tried = measured(seconds)

    assert plan_pictures(pipeline, most, 64 * GIB).slots == slots
    assert max(tried) <= max(2, most), "more than could be served is not even tried"


@pytest.mark.parametrize(("seconds", "slots"), [(flat, 2), (linear, 1)])
def test_a_search_that_takes_too_long_ends_with_what_it_has_seen(
    pipeline: Any, measured: Any, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float], slots: int
) -> None:
    tried = measured(seconds)
    monkeypatch.setattr(picture_capacity, "SEARCH_SECONDS", 0)

    assert plan_pictures(pipeline, 16, 64 * GIB).slots == slots
    assert tried == [1, 2, 1, 2], "their memory, and then their time"


def memory_for(pipeline: Any, slots: float, pixels: int) -> int:
    """Bytes for so many pictures of `pixels`, and for what one of them takes once."""
    taken = (2 + slots) * SLOT * pixels / math.prod(pipeline.sizes.default)
    return int((pipeline.weight_bytes + PROCESS_BYTES + taken) / (1 - MARGIN))


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_no_more_than_memory_holds(pipeline: Any, measured: Any, slots: int) -> None:
    tried = measured(flat)
    memory = memory_for(pipeline, slots + 0.5, 2048)

    plan = plan_pictures(pipeline, 16, memory)

    assert plan.slots == slots
    assert max(tried) <= max(2, slots)
    assert "2048 pixels" in str(plan), "the largest that may be asked for"


def test_where_no_larger_picture_fits_the_default_size_is_the_largest(
    pipeline: Any, measured: Any, caplog: pytest.LogCaptureFixture
) -> None:
    measured(flat)
    pipeline.parameters("a", seed=0, size="40x40")
    caplog.set_level("INFO")

    plan = plan_pictures(pipeline, 16, memory_for(pipeline, 1.5, 1024))

    assert plan.slots == 1
    assert "1024 pixels" in str(plan)
    assert "no picture is larger than 32x32: " in caplog.text
    pipeline.parameters("a", seed=0, size="32x32")
    with pytest.raises(ProblemError, match="with at most 1024 pixels together"):
        pipeline.parameters("a", seed=0, size="40x40")


def test_what_a_deployment_has_set_is_the_largest_or_does_not_fit(pipeline: Any, measured: Any) -> None:
    measured(flat)
    larger = Pipeline(pipeline.pipe, NO_DEFAULTS, max_pixels=4096)

    assert plan_pictures(larger, 16, memory_for(pipeline, 2.5, 4096)).slots == 2
    with pytest.raises(ModelError, match=r"one slot of 4096 pixels, .* or set a smaller --max-pixels"):
        plan_pictures(larger, 16, memory_for(pipeline, 1.5, 1024))


def test_when_not_even_one_fits_it_says_how_much_it_takes(pipeline: Any, measured: Any) -> None:
    measured(flat)

    with pytest.raises(ModelError, match=r"500.0 MiB of memory do not hold the model and one slot of 1024 pixels"):
        plan_pictures(pipeline, 16, 500 * 2**20)


@pytest.mark.parametrize(("holds", "slots"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4)])
def test_running_out_of_memory_while_measuring_is_an_answer(
    pipeline: Any, measured: Any, holds: int, slots: int
) -> None:
    measured(flat, holds)

    assert plan_pictures(pipeline, 16, 64 * GIB).slots == slots


def test_what_a_real_measurement_leaves_behind_is_nothing(pipeline: Any) -> None:
    forward = pipeline.denoiser.forward

    plan = plan_pictures(pipeline, 4, 8 * GIB)

    assert pipeline.denoiser.forward == forward
    assert plan.cost.weights == pipeline.weight_bytes > 0
    assert plan.cost.slot >= 2 * 32 * 32 * LEAST_PIXEL_BYTES
    assert 1 <= plan.slots <= 4


def test_a_pipeline_that_fails_while_it_is_measured_is_left_as_it_was(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_prompt: Any, *_arguments: Any, **_more: Any) -> Any:
        raise ValueError("cannot")

    forward = pipeline.denoiser.forward
    monkeypatch.setattr(pipeline.pipe, "encode_prompt", broken)

    with pytest.raises(ValueError, match="cannot"):
        plan_pictures(pipeline, 4, 8 * GIB)

    assert pipeline.denoiser.forward == forward


def test_a_pipeline_that_cannot_make_a_picture_is_refused_with_one_line(
    load: Any, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    def broken(*_arguments: Any, **_more: Any) -> Any:
        raise ValueError("cannot")

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "encode_prompt", broken)

    with pytest.raises(ModelError, match="cannot make a picture: ValueError: cannot"):
        load(tiny_sd)


def test_slots_that_are_known_are_not_measured(load: Any, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("predictor.pictures.capacity.plan_pictures")
    assert load(tiny_sd, slots=3, max_waiting=5).max_scheduled == 8


def test_a_pipeline_that_makes_no_larger_pictures_serves_its_default_size(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pipeline.run

    def limited(self: Any, parameters: Any, *more: Any) -> Any:
        assert parameters.width <= 32, "no positions"
        return run(self, parameters, *more)

    monkeypatch.setattr(Pipeline, "run", limited)

    assert "1024 pixels" in str(plan_pictures(pipeline, 2, 8 * GIB))
