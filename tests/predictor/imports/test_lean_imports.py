"""Lean imports: only with the tested versions, only when wanted, and never the reason of a failed start."""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictor.imports import lean_imports
from predictor.imports.deferred_imports import deferring

ROOT = Path(__file__).parents[3]


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was deferred, of kserve and of torch and its friends; nothing really is."""
    made: list[str] = []

    def prepare(name: str) -> object:
        made.append(name)
        return deferring({})

    monkeypatch.setattr(lean_imports, "_defer_kserve", lambda: prepare("kserve"))
    monkeypatch.setattr(lean_imports, "_defer_transformers", lambda: prepare("transformers"))
    return made


@pytest.fixture(autouse=True)
def _as_at_a_start() -> Iterator[None]:
    lean_imports._installed.cache_clear()
    yield
    lean_imports._installed.cache_clear()
    lean_imports.use_lean_imports(True)


def import_all() -> None:
    with lean_imports.lean_server_imports(), lean_imports.lean_imports():
        """A start would import here."""


def test_the_installed_versions_are_the_tested_ones(deferred: list[str]) -> None:
    import_all()

    assert deferred == ["kserve", "transformers"]


@pytest.mark.parametrize(
    ("package", "version", "lean"),
    [
        ("torch", "2.14.0+cpu", ["kserve"]),
        ("transformers", "5.24.1", ["kserve"]),
        ("diffusers", "0.43.0", ["kserve"]),
        ("kserve", "0.22.0", ["transformers"]),
        ("torch", "2.13.4+cu130", ["kserve", "transformers"]),
        ("transformers", "5.23.0.dev0", ["kserve", "transformers"]),
    ],
)
def test_another_minor_version_is_imported_plainly(
    deferred: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    package: str,
    version: str,
    lean: list[str],
) -> None:
    installed = importlib.metadata.version
    monkeypatch.setattr(lean_imports, "version", lambda name: version if name == package else installed(name))
    caplog.set_level(logging.INFO)

    import_all()

    assert deferred == lean
    lines = [line for line in caplog.messages if "without lean imports" in line]
    assert len(lines) == 2 - len(lean)
    assert all(f"{package} is {version}" in line for line in lines)


def test_it_can_be_turned_off(deferred: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lean_imports.use_lean_imports(False)

    import_all()

    assert deferred == []
    assert caplog.messages == []


def test_an_error_while_preparing_is_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> object:
        raise AttributeError("transformers.utils has no import_utils")

    monkeypatch.setattr(lean_imports, "_defer_transformers", fail)
    caplog.set_level(logging.INFO)

    with lean_imports.lean_imports():
        """The start goes on."""

    assert caplog.messages == [
        "the start takes longer without lean imports: AttributeError: transformers.utils has no import_utils"
    ]


def test_an_error_while_loading_is_not_hidden(deferred: list[str]) -> None:
    with pytest.raises(KeyError), lean_imports.lean_imports():
        raise KeyError("weights")


@pytest.mark.slow
@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param("", id="as it is"),
        pytest.param("lean_imports.use_lean_imports(False)", id="turned off", marks=pytest.mark.nightly),
        pytest.param("lean_imports.TESTED['torch'] = '2.0'", id="another version", marks=pytest.mark.nightly),
        pytest.param(
            "lean_imports.SimpleNamespace = None", id="an error before anything is deferred", marks=pytest.mark.nightly
        ),
        pytest.param("lean_imports._replaced = None", id="an error when everything is deferred"),
    ],
)
def test_the_model_is_loaded_in_any_case(prepare: str) -> None:
    code = f"""
from predictor.imports import lean_imports
{prepare}
from predictor.text.checkpoint import load_checkpoint
model = load_checkpoint("models/poet", "cpu", "auto", lambda _: None).model
import torch, transformers, diffusers, sympy
print(model.generate(torch.tensor([[2]]), max_new_tokens=1).shape, transformers.AutoModelForCausalLM.__name__)
print(diffusers.DiffusionPipeline.__name__)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item(), sympy.sqrt(4))
"""
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert output.stdout == "torch.Size([1, 2]) AutoModelForCausalLM\nDiffusionPipeline\n2.0 2\n", output.stderr


@pytest.mark.slow
def test_the_start_of_a_text_model_runs_nothing_that_was_deferred() -> None:
    code = """
import sys
from predictor.engine.engine_settings import EngineSettings
from predictor.text.transformers_engine import TransformersEngine
TransformersEngine(EngineSettings(model="models/poet")).load(lambda _: None)
deferred = {name: module._begun for name, module in sys.modules.items() if type(module).__name__ == "_Deferred"}
assert "torch._dynamo" in deferred
print(deferred.get("transformers"), [name for name, has_run in deferred.items() if has_run])
"""
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert output.stdout == "False []\n", output.stdout + output.stderr
