"""transformers and diffusers with less than they import: in a process that has one device and compiles nothing.

Importing the class of one language model takes twice as long as torch itself (docs/cold-start.md has the figures). Most
of that is torch.distributed.tensor and torch._dynamo, for decorators and type checks that do nothing here, and
transformers' own table of contents, which it makes twice from the source of all its models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from predictor.deferral import deferring


@contextmanager
def lean_imports() -> Iterator[None]:
    """Load a model in here. Whatever it asks for is there all the same, and comes when it is asked for."""
    import torch

    # Decorators at the top level of modules: marks for a compiler. That one is imported when something is compiled.
    compiler = {"allow_in_graph": _bare, "assume_constant_result": _bare, "disable": _bare}
    released = {name: {"__version__": version(name)} for name in ("transformers", "diffusers")}
    with deferring({**released, "transformers.models": {}, "torch._dynamo": compiler}):
        from transformers.utils import import_utils

        with _lent(torch.distributed, "is_available", lambda: False):
            import_utils.is_torch_distributed_available()  # which it remembers
        import transformers

        with _lent(transformers.utils, "direct_transformers_import", lambda *_: transformers):
            import transformers.processing_utils
        with _lent(torch.nn.init, "normal_", _unless_meta(torch.nn.init.normal_)):
            yield


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


def _unless_meta(initialize: Callable[..., Any]) -> Callable[..., Any]:
    """There is nothing to initialize in a tensor without data, and torch imports sympy in order not to do it."""

    def initialized(tensor: Any, *arguments: Any, **options: Any) -> Any:
        return tensor if tensor.is_meta else initialize(tensor, *arguments, **options)

    return initialized
