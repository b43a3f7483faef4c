"""`system_fingerprint`: the same for servers that give the same answer, another for those that may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch

from predictor.engine.base import Engine
from predictor.engine.engine_settings import EngineSettings
from predictor.loading.fingerprint import fingerprint
from predictor.text.transformers_engine import TransformersEngine
from tests.support.engine_cores import PictureHarness, TextHarness


def made(seed: int = 0, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 20, **changes), torch.nn.LayerNorm(20))


def test_the_same_model_has_the_same_one() -> None:
    assert fingerprint({"model": made()}, length=4) == fingerprint({"model": made()}, length=4)
    assert fingerprint({"model": made()}).startswith("fp_")


def half() -> torch.nn.Module:
    return made().to(torch.bfloat16)


def tuned() -> torch.nn.Module:
    """A model of which one tensor was trained on."""
    model = made()
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    return model


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("other", [lambda: made(1), lambda: made(bias=False), half, tuned])
def test_another_model_or_another_type_has_another(other: Callable[[], torch.nn.Module]) -> None:
    assert fingerprint({"model": made()}) != fingerprint({"model": other()})


def test_other_facts_versions_and_threads_have_another() -> None:
    first = fingerprint({"model": made()}, length=4)
    found = {first, fingerprint({"model": made()}, length=5)}
    with mock.patch("predictor.loading.fingerprint.package_version", return_value="99"):
        found.add(fingerprint({"model": made()}, length=4))
    with threads(torch.get_num_threads() + 1):
        found.add(fingerprint({"model": made()}, length=4))
    with mock.patch("predictor.loading.fingerprint.most_threads", return_value=99):  # of long prompts
        found.add(fingerprint({"model": made()}, length=4))
    assert len(found) == 5


def test_weights_that_cannot_be_looked_at_are_described_by_their_shape() -> None:
    assert fingerprint({"model": made(), "elsewhere": made(device="meta")})


def test_slots_do_not_matter(loaded: TransformersEngine, text_harness: Callable[..., TextHarness]) -> None:
    assert loaded.fingerprint
    assert {text_harness(slots).core.fingerprint for slots in (1, 4)} == {loaded.fingerprint}


def test_an_engine_that_loads_has_none_yet() -> None:
    assert TransformersEngine(EngineSettings(model="poet")).fingerprint is None


def test_pictures_have_one(picture_harness: Callable[..., PictureHarness]) -> None:
    assert picture_harness().core.fingerprint == picture_harness(slots=1).core.fingerprint


def test_an_engine_that_does_not_know_has_none(engine: Engine) -> None:
    assert engine.fingerprint is None


def test_another_config_of_the_same_weights_has_another_and_another_folder_has_not() -> None:
    from transformers import LlamaConfig

    def model(**changed: object) -> torch.nn.Module:
        module = made()
        module.config = LlamaConfig(**changed)
        return module

    first = fingerprint({"model": model()})
    assert fingerprint({"model": model(name_or_path="elsewhere")}) == first
    assert fingerprint({"model": model(max_position_embeddings=99)}) != first
    assert fingerprint({"model": model(rope_parameters={"rope_type": "default", "rope_theta": 5.0})}) != first
