"""A pipeline that nobody has compared yet is compared at its start: alone, and beside others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from predictor.engine.memory.slot_plan import PROCESS_BYTES
from predictor.pictures import batch_check
from predictor.pictures.batch_check import most_together
from predictor.pictures.capacity import plan_pictures
from predictor.pictures.denoiser_call import DenoiserCall
from tests.support import pipelines

pytestmark = pytest.mark.slow


@pytest.fixture
def unknown(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pipeline of a class that the tests do not compare."""
    monkeypatch.setattr(batch_check, "COMPARED", set())
    return copy.copy(pipeline)


@pytest.fixture
def mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows get the answers of others, as where an argument without rows was taken for one with them."""
    compute = DenoiserCall.compute_with
    monkeypatch.setattr(DenoiserCall, "compute_with", lambda *arguments: compute(*arguments)[::-1])


def test_pictures_that_are_the_same_share_forwards(unknown: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert most_together(unknown, 4) == 4
    assert not caplog.records


def test_pictures_that_are_not_are_made_one_at_a_time(
    unknown: Any, mixed_up: None, caplog: pytest.LogCaptureFixture
) -> None:
    forward = unknown.denoiser.forward

    assert most_together(unknown, 4) == 1

    assert (
        "StableDiffusionPipeline makes one picture at a time: in a forward with others, latents are off" in caplog.text
    )
    assert unknown.denoiser.forward == forward
    assert plan_pictures(unknown, 4, PROCESS_BYTES + 2**30).slots == 1


def test_so_are_those_of_a_pipeline_that_changes_its_denoiser_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    from predictor.pictures.model_defaults import NO_DEFAULTS
    from predictor.pictures.pipeline import Pipeline

    parts = pipelines.stable_diffusion().components
    perturbed = pipelines.library().StableDiffusionPAGPipeline(**parts, requires_safety_checker=False)

    assert most_together(Pipeline(perturbed, NO_DEFAULTS), 4) == 1

    assert "perturbed attention changes the denoiser while a picture is made" in caplog.text


def test_so_are_those_whose_shared_forward_fails(
    unknown: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any) -> Any:
        raise RuntimeError("sizes do not match\nat all")

    monkeypatch.setattr(DenoiserCall, "compute_with", broken)

    assert most_together(unknown, 4) == 1
    assert caplog.text.strip().endswith("in a forward with others, sizes do not match")


def test_a_pipeline_that_fails_alone_too_ends_the_check(
    unknown: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any, **_more: Any) -> Any:
        raise ValueError("cannot")

    monkeypatch.setattr(unknown.pipe, "encode_prompt", broken)

    assert most_together(unknown, 4) == 1
    assert "in a forward with others, cannot" in caplog.text


def test_a_device_without_memory_is_no_verdict(unknown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(DenoiserCall, "compute_with", full)

    with pytest.raises(torch.OutOfMemoryError):
        most_together(unknown, 4)


async def test_known_slots_are_checked_too(unknown: Any, mixed_up: None, load: Any, tiny_sd: Any) -> None:
    assert load(tiny_sd, slots=4).core.batch.slots == 1


def test_what_the_tests_compare_is_not_compared_again(pipeline: Any, mixed_up: None) -> None:
    assert most_together(pipeline, 4) == 4
