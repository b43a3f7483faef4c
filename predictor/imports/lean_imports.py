"""kserve, torch, transformers and diffusers with fewer imports, for a process with one device that need not compile.

Importing the class of one language model takes twice as long as torch itself (docs/cold-start.md has the figures). Most
of it is torch.distributed.tensor and torch._dynamo, for decorators and type checks that do nothing here, and
transformers' table of contents, which it makes twice from the source of all its models.

This relies on the internals of the TESTED versions. With others, and after any error, the imports are the plain ones:
the start takes longer and does not fail. The setting `lean_imports` turns it off.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from predictor.imports.deferred_imports import deferring

log = logging.getLogger(__name__)

TESTED = {"kserve": "0.21", "torch": "2.13", "transformers": "5.23", "diffusers": "0.42"}
"""Major and minor versions for which the tests prove that everything deferred works when it is used."""

_enabled = True


def use_lean_imports(wanted: bool) -> None:
    """Turn lean imports on or off for this process. Call it before anything is imported."""
    global _enabled
    _enabled = wanted


@contextmanager
def lean_server_imports() -> Iterator[None]:
    """Import the server in here: kserve without its Kubernetes client, and without pandas, which it annotates with."""
    with _or_plain("kserve", prepare=_defer_kserve):
        yield


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import the model's class and load the model in here. Everything else is imported when it is asked for."""
    with _or_plain("torch", "transformers", "diffusers", prepare=_defer_transformers):
        yield


@contextmanager
def lean_picture_imports() -> Iterator[None]:
    """Import a pipeline in here, within `lean_imports`: of its models only those that it has."""
    with _or_plain("diffusers", prepare=_defer_diffusers_models):
        yield


@contextmanager
def _or_plain(*packages: str, prepare: Any) -> Iterator[None]:
    with ExitStack() as stack:
        if _enabled:
            try:
                _check_versions(packages)
                stack.enter_context(prepare())
            except Exception as error:
                log.info("the start takes longer without lean imports: %s: %s", type(error).__name__, error)
        yield


@cache
def _installed(package: str) -> str:
    return version(package)


def _check_versions(packages: tuple[str, ...]) -> None:
    """Raises RuntimeError unless these packages have the tested versions."""
    for package in packages:
        installed = _installed(package)
        if installed.split(".")[:2] != TESTED[package].split("."):
            raise RuntimeError(f"{package} is {installed}, and {TESTED[package]} is the tested version")


def _defer_kserve() -> AbstractContextManager[Any]:
    return deferring({"kserve": {}, "pandas": {"DataFrame": Any}}, loose=["kserve"])


def _defer_diffusers_models() -> AbstractContextManager[Any]:
    packages: dict[str, dict[str, Any]] = {
        f"diffusers.models.{name}": {} for name in ("autoencoders", "transformers", "unets")
    }
    return deferring(packages, packages)


def _defer_transformers() -> ExitStack:
    """Everything that holds while a model is loaded. When it raises, nothing is deferred."""
    if find_spec("torchao"):  # transformers imports it wherever it is installed, and it wants all of torch
        raise RuntimeError("torchao is installed")
    import torch

    # Decorators at the top level of modules, which mark functions for a compiler.
    compiler: dict[str, Any] = dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _no_decorator)
    compiler["eval_frame"] = SimpleNamespace(OptimizedModule=_NoModule)  # diffusers' type of a compiled model
    # Models are built without data first. torch then allows for sizes that are symbols, and imports sympy for them.
    # Here all sizes are numbers.
    judgements = ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "statically_known_true")
    numbers: dict[str, Any] = dict.fromkeys(judgements, bool)
    numbers |= {"guarding_hint_or_throw": int, "has_guarding_hint": lambda _: True, "is_nested_int": lambda _: False}
    numbers |= {"sym_and": lambda *of: all(of), "sym_eq": operator.eq, "sym_or": lambda *of: any(of)}
    symbols = {"sympy": {"Basic": _NoModule}, "torch.fx.experimental.symbolic_shapes": numbers}
    loose = {name: {"__version__": _installed(name)} for name in ("transformers", "diffusers")}
    loose["transformers.models"] = {}
    with ExitStack() as stack:
        undo = stack.enter_context(deferring({**loose, "torch._dynamo": compiler, **symbols}, loose))
        try:
            from transformers.utils import import_utils

            with _replaced(torch.distributed, "is_available", lambda: False):
                import_utils.is_torch_distributed_available()  # it remembers the answer
            import transformers

            stack.enter_context(_replaced(transformers.utils, "direct_transformers_import", lambda *_: transformers))
            import transformers.processing_utils
        except BaseException:
            undo()
            raise
        return stack.pop_all()


class _NoModule:
    """A type without instances, for checks that are always false here."""


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """The module has another value under this name in here."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _no_decorator(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without arguments, that does nothing."""
    return function if callable(function) else _no_decorator
