"""Modules that look imported, and whose own code runs when somebody asks for an attribute that only it can give.

The `__init__` of some packages costs more than those of their modules that are used: transformers 5.23 reads the source
of all its models, kserve 0.21 imports a Kubernetes client. The modules of a deferred package can be imported without
it. Its own code runs at the first other attribute, in the same module object, as with importlib.util.LazyLoader, which
would run it for the modules, too. So nothing is missing later; it only comes later.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@contextmanager
def deferring(modules: Mapping[str, Mapping[str, Any]], loose: Collection[str] = ()) -> Iterator[Callable[[], None]]:
    """Defer these modules, for good. Inside, they have the attributes of the mapping: what others ask of them while
    those are imported and do not need, such as names for annotations.

    The names in `loose` are packages that give their modules as attributes without being run. Modules that are imported
    already or not installed are left alone; those that are deferred already and have not run get their attributes
    again. Yields a function that undoes the deferring of what has not run.
    """
    deferred: list[_Deferred] = []

    def undo() -> None:
        for module in reversed(deferred):
            module._undo()

    try:
        for name, attributes in modules.items():
            known = sys.modules.get(name)
            if isinstance(known, _Deferred):
                known._lend(attributes)
                deferred.append(known)
                continue
            spec = None if known is not None else find_spec(name)
            if spec is not None and spec.loader is not None:
                deferred.append(_Deferred(spec, attributes, name in loose))
    except BaseException:
        undo()
        raise
    try:
        yield undo
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
        self.__dict__.update(_lent={}, _loose=loose, _begun=False, _lock=threading.RLock())
        self._lend(lent)
        sys.modules[spec.name] = self
        parent, _, child = spec.name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # the import system and inspect ask every module for these
            raise AttributeError(name)
        with self._lock:
            if not self._begun:
                if self._loose and find_spec(f"{self.__name__}.{name}"):
                    return importlib.import_module(f"{self.__name__}.{name}")
                self._run()
            if name in self.__dict__:
                return self.__dict__[name]
        current = sys.modules[self.__name__]
        if current is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(current, name)  # the module has replaced itself in sys.modules, as transformers does

    def _run(self) -> None:
        self._take_back()
        self.__dict__["_begun"] = True
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)

    def _undo(self) -> None:
        """Have the next import run the module as usual. Whoever has this object can still use it."""
        self._take_back()
        if not self._begun and sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
            parent, _, child = self.__name__.rpartition(".")
            if parent and vars(sys.modules[parent]).get(child) is self:
                delattr(sys.modules[parent], child)

    def _lend(self, attributes: Mapping[str, Any]) -> None:
        if not self._begun:  # and nothing in the place of what is there, such as a module that was imported meanwhile
            absent = {name: value for name, value in attributes.items() if name not in self.__dict__}
            self._lent.update(absent)
            self.__dict__.update(absent)

    def _take_back(self) -> None:
        """Remove the lent attributes."""
        for name, value in self._lent.items():
            if self.__dict__.get(name) is value:
                del self.__dict__[name]
        self._lent.clear()
