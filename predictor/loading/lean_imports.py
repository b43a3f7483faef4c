"""transformers and diffusers with less than they import: in a process that has one device and compiles nothing.

Importing the class of one language model takes twice as long as torch itself (docs/cold-start.md has the figures). Most
of that is torch.distributed.tensor and torch._dynamo, for decorators and type checks that do nothing here, and
transformers' own table of contents, which it makes twice from the source of all its models.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from predictor.loading.deferred_imports import deferring


@contextmanager
def lean_imports() -> Iterator[None]:
    """Load a model in here. Whatever it asks for is there all the same, and comes when it is asked for."""
    import torch

    # Decorators at the top level of modules: marks for a compiler. That one is imported when something is compiled.
    compiler: dict[str, Any] = dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _bare)
    compiler["eval_frame"] = SimpleNamespace(OptimizedModule=_Nothing)  # what diffusers takes for compiled
    # Models are built without data first. What torch does with such tensors allows for sizes that are symbols, and so
    # imports sympy; here they are numbers.
    judgements = ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "statically_known_true")
    numbers: dict[str, Any] = dict.fromkeys(judgements, bool)
    numbers |= {"guarding_hint_or_throw": int, "has_guarding_hint": lambda _: True, "is_nested_int": lambda _: False}
    numbers |= {"sym_and": lambda *of: all(of), "sym_eq": operator.eq, "sym_or": lambda *of: any(of)}
    symbols = {"sympy": {"Basic": _Nothing}, "torch.fx.experimental.symbolic_shapes": numbers}
    released = {name: {"__version__": version(name)} for name in ("transformers", "diffusers")}
    loose = {**released, "transformers.models": {}}
    with deferring({**loose, "torch._dynamo": compiler, **symbols}, loose):
        from transformers.utils import import_utils

        with _lent(torch.distributed, "is_available", lambda: False):
            import_utils.is_torch_distributed_available()  # which it remembers
        import transformers

        with _lent(transformers.utils, "direct_transformers_import", lambda *_: transformers):
            import transformers.processing_utils

            yield


class _Nothing:
    """The type of nothing that a model is made of."""


@contextmanager
def _lent(module: Any, name: str, value: Any) -> Iterator[None]:
    own = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, own)


def _bare(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without arguments, that does nothing."""
    return function if callable(function) else _bare
