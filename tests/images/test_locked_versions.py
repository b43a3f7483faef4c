"""Versions in the predictor's image are the tested ones, whichever build of torch is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images.locked_versions import Distribution, torch_constraints, unlocked
from tests.images.torch_builds import CPU, CUDA, LINUX

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
FOR_TORCH = torch_constraints((ROOT / "predictor" / "Dockerfile").read_text(), CONSTRAINTS)

BUILDS = pytest.mark.parametrize("build", [CPU, CUDA], ids=["CPU", "CUDA"])


@BUILDS
def test_what_torch_brings_has_the_tested_versions(build: list[Distribution]) -> None:
    assert unlocked(build, CONSTRAINTS.splitlines(), LINUX) == set()


@BUILDS
def test_torch_is_installed_with_all_constraints_that_matter_to_it(build: list[Distribution]) -> None:
    assert unlocked(build, FOR_TORCH, LINUX) == unlocked(build, CONSTRAINTS.splitlines(), LINUX)


@BUILDS
@pytest.mark.parametrize("package", ["torch", "sympy", "typing_extensions", "MarkupSafe"])
def test_another_version_is_found(build: list[Distribution], package: str) -> None:
    changed = [Distribution(each.name, "0.0.1", each.requirements) if each.name == package else each for each in build]
    missing = unlocked(changed, CONSTRAINTS.splitlines(), LINUX)
    assert missing >= {package.lower().replace("_", "-")}
    # What only torch locks is unlocked with it.
    assert ("triton" in missing) == (package == "torch" and build is CUDA)


def test_another_version_than_torch_requires_is_found() -> None:
    changed = [Distribution("triton", "3.7.2") if each.name == "triton" else each for each in CUDA]
    assert "triton" in unlocked(changed, CONSTRAINTS.splitlines(), LINUX)


def test_an_extra_that_nobody_asks_for_locks_nothing() -> None:
    more = [*CUDA, Distribution("nvidia-cuda-nvcc", "13.0.88")]
    assert "nvidia-cuda-nvcc" in unlocked(more, CONSTRAINTS.splitlines(), LINUX)


def test_torch_keeps_its_layer_when_other_versions_change() -> None:
    names = {line.partition("==")[0] for line in FOR_TORCH}
    assert {"torch", "Jinja2", "typing_extensions"} <= names
    assert not {"uvicorn", "transformers", "pydantic"} & names
