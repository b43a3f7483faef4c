"""Modules that look imported while their own code waits until somebody asks for what only it can give.

The `__init__` of some packages costs more than the modules in them that are used: transformers reads the source of
all its models, kserve brings a Kubernetes client. A deferred package lets its modules be imported, and runs its own
code at the first other attribute, in the same module object, as importlib.util.LazyLoader does; that one would run it
for the modules, too. Whatever is used later is therefore there, and only late.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@contextmanager
def deferring(modules: Mapping[str, Mapping[str, Any]], loose: Collection[str] = ()) -> Iterator[None]:
    """Defer these modules for good, and let them have some attributes for as long as this lasts: what others ask of
    them while they are imported, without needing it, such as annotations. Those of them that are `loose` are packages
    whose modules can do without them. Modules that are there already, or not installed, are left alone."""
    deferred = []
    for name, attributes in modules.items():
        spec = None if name in sys.modules else find_spec(name)
        if spec is not None and spec.loader is not None:
            deferred.append(_Deferred(spec, attributes, name in loose))
    try:
        yield
    finally:
        for module in deferred:
            module._take_back()


class _Deferred(ModuleType):
    def __init__(self, spec: ModuleSpec, lent: Mapping[str, Any], loose: bool) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__file__ = spec.origin
        self.__package__ = spec.parent
        self.__loader__ = spec.loader
        if spec.submodule_search_locations is not None:
            self.__path__ = list(spec.submodule_search_locations)
        self.__dict__.update(lent, _lent=dict(lent), _loose=loose, _begun=False, _lock=threading.RLock())
        sys.modules[spec.name] = self
        parent, _, child = spec.name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # the import system and inspect look for these everywhere
            raise AttributeError(name)
        with self._lock:
            if not self._begun:
                if self._loose and find_spec(f"{self.__name__}.{name}"):
                    return importlib.import_module(f"{self.__name__}.{name}")
                self._run()
            if name in self.__dict__:
                return self.__dict__[name]
        itself = sys.modules[self.__name__]
        if itself is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(itself, name)  # it has put another in its own place, as transformers does

    def _run(self) -> None:
        self._take_back()
        self.__dict__["_begun"] = True
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)

    def _take_back(self) -> None:
        for name, value in self._lent.items():
            if self.__dict__.get(name) is value:
                del self.__dict__[name]
        self._lent.clear()
