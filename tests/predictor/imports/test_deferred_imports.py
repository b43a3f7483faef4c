"""Deferred modules run when they are needed, and everything in them is there later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from predictor.imports.deferred_imports import deferring

ROOT = Path(__file__).parents[3]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with two modules, whose own code is known to have run by the attribute `made`."""
    folder = tmp_path / "dumpling"
    folder.mkdir()
    (folder / "__init__.py").write_text("from dumpling import filling\nmade = filling.taste\nShape = float\n")
    (folder / "filling.py").write_text("taste = 'chives'\n")
    (folder / "dough.py").write_text("import dumpling\ndef fold() -> dumpling.Shape: return dumpling.made\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "dumpling"
    for name in [name for name in sys.modules if name.partition(".")[0] == "dumpling"]:
        del sys.modules[name]


def ran(name: str) -> bool:
    return "made" in vars(sys.modules[name])


def test_its_modules_are_imported_without_it(package: str) -> None:
    with deferring({package: {}}, loose=[package]):
        assert import_module("dumpling.filling").taste == "chives"

    assert not ran(package)


def test_it_runs_when_it_is_asked_for_something_of_its_own(package: str) -> None:
    with deferring({package: {}}):
        dumpling = import_module(package)
    assert not ran(package)

    assert dumpling.made == "chives"

    assert sys.modules[package] is dumpling, "whoever has it already has it whole"


def test_a_loose_package_gives_its_modules_without_running(package: str) -> None:
    with deferring({package: {}}, loose=[package]):
        dumpling: Any = import_module(package)

    assert dumpling.filling.taste == "chives"
    assert not ran(package)


def test_a_package_that_is_not_loose_runs_before_its_modules_are_given(package: str) -> None:
    with deferring({package: {}}):
        dumpling: Any = import_module(package)

    assert dumpling.filling.taste == "chives"
    assert ran(package)


def test_what_is_lent_serves_annotations_and_is_taken_back(package: str) -> None:
    with deferring({package: {"Shape": str}}, loose=[package]):
        fold = import_module("dumpling.dough").fold
    assert fold.__annotations__["return"] is str
    assert not ran(package)

    assert import_module(package).Shape is float
    assert fold() == "chives"


def test_what_is_lent_does_not_survive_the_real_thing(package: str) -> None:
    with deferring({package: {"filling": None}}):
        assert import_module(package).made == "chives"
        assert import_module(package).filling.taste == "chives"


def test_what_it_does_not_have_it_does_not_have(package: str) -> None:
    with deferring({package: {}}):
        dumpling = import_module(package)

    with pytest.raises(AttributeError, match="'dumpling' has no attribute 'sauce'"):
        _ = dumpling.sauce


def test_a_package_may_put_another_in_its_own_place(package: str, tmp_path: Path) -> None:
    (tmp_path / "dumpling" / "__init__.py").write_text(
        "import sys, types\nother = types.ModuleType(__name__)\nother.made = 'another'\nsys.modules[__name__] = other\n"
    )
    with deferring({package: {}}):
        dumpling = import_module(package)

    assert dumpling.made == "another"
    assert dumpling.made == sys.modules[package].made


def test_what_is_there_already_or_not_installed_is_left_alone(package: str) -> None:
    present = import_module(package)
    with deferring({package: {"made": "something else"}, "no_such_package": {}}):
        assert import_module(package) is present
        assert present.made == "chives"
        assert "no_such_package" not in sys.modules


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_text_starts_without_what_it_does_not_use_and_all_of_it_is_there_later() -> None:
    code = """
import sys
from typing import Any
from predictor.imports.deferred_imports import deferring
with deferring({"kserve": {}, "pandas": {"DataFrame": Any}}, loose=["kserve"]):
    import predictor.server.model_server
from predictor.text.checkpoint import load_checkpoint
checkpoint = load_checkpoint("models/poet", "cpu", "auto", lambda _: None)
unused = "pandas.core", "kubernetes", "diffusers.models", "sympy.core", "torch._dynamo.eval_frame"
print([name for name in unused if name in sys.modules])

import torch, transformers, pandas, kserve, diffusers, sympy
from kserve.protocol.infer_type import InferInput, InferRequest
print(len(InferRequest("m", [InferInput("a", [2], "INT64", [1, 2])]).as_dataframe()))
print(kserve.KServeClient.__name__, transformers.AutoModelForCausalLM.__name__, diffusers.DiffusionPipeline.__name__)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item(), torch.distributed.is_available())
print(sympy.sqrt(4), checkpoint.model.generate(torch.tensor([[2]]), max_new_tokens=1).shape)
"""

    printed = run(code).splitlines()

    assert printed == [
        "[]",
        "2",
        "KServeClient AutoModelForCausalLM DiffusionPipeline",
        "2.0 True",
        "2 torch.Size([1, 2])",
    ]


@pytest.mark.slow
def test_a_pipeline_starts_without_the_models_of_others_and_all_of_them_are_there_later() -> None:
    code = """
import sys
from predictor.pictures.pipeline_loading import load_pipeline
pipeline = load_pipeline("models/painter", "cpu", "auto", lambda _: None)
prefixes = [f"diffusers.models.{name}." for name in ("autoencoders", "transformers", "unets")]
print(sum(name.startswith(prefix) for prefix in prefixes for name in sys.modules) < 30)

import diffusers
from diffusers.models.autoencoders import AutoencoderDC
from diffusers.models.transformers import FluxTransformer2DModel
from diffusers.models.unets import UNet1DModel
print(diffusers.AutoencoderDC is AutoencoderDC, diffusers.FluxTransformer2DModel is FluxTransformer2DModel)
print(isinstance(pipeline.pipe.vae, diffusers.models.AutoencoderKL), UNet1DModel.__name__)
"""

    assert run(code).splitlines() == ["True", "True True", "True UNet1DModel"]


def test_it_is_lent_its_attributes_again_until_it_has_run(package: str) -> None:
    for _ in range(2):
        with deferring({package: {"made": "lent"}}):
            assert import_module(package).made == "lent"
        assert not ran(package)
    with deferring({package: {"made": "lent"}}):
        with deferring({package: {"made": "lent"}}):
            assert import_module(package).made == "lent"
        assert import_module(package).made == "chives", "the inner one has ended"
    with deferring({package: {"made": "lent"}}):
        assert import_module(package).made == "chives", "what has run has its own"


def test_a_module_that_was_imported_meanwhile_is_not_replaced(package: str) -> None:
    with deferring({package: {}}, loose=[package]):
        filling = import_module("dumpling.filling")
    with deferring({package: {"filling": None}}, loose=[package]):
        assert import_module(package).filling is filling
    assert import_module(package).filling is filling
