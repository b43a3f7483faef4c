"""The rules of our manifests: what may be in each, and what must match between them.

`problems` renders every kustomization with the real kustomize and checks what comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from tests.manifests.checks import (
    images,
    knative,
    kustomizations,
    metadata,
    references,
    schemas,
    settings,
    typed,
    values,
)
from tests.manifests.checks.objects import Object


def problems(root: Path, folders: Iterable[Path] | None = None) -> Iterator[str]:
    """What is wrong with the manifests below `root`, one line each and folder by folder; nothing if all is right."""
    flags = kustomizations.flags(root)
    for folder in kustomizations.all_of(root) if folders is None else folders:
        where = kustomizations.name(root, folder)
        try:
            yield from (f"{where}: {problem}" for problem in _problems(root, folder, flags))
        except kustomizations.RenderError as error:
            yield f"{where}: {error}"
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            yield f"{where}: has not the form that is expected: {error!r}"


def _problems(root: Path, folder: Path, flags: Collection[str]) -> Iterator[str]:
    objects = kustomizations.render(folder)
    shape = [f"{thing.title}: {problem}" for thing in objects for problem in _problems_of_shape(thing)]
    yield from shape
    if shape:  # the other checks rely on it
        return
    yield from (f"{thing.title}: {problem}" for thing in objects for problem in _problems_of_values(thing))
    yield from kustomizations.check_operations(folder)
    yield from kustomizations.check_targets(folder, objects)
    yield from references.check(objects, complete=folder.parent.name == "deploy")
    yield from knative.check_flags(objects, flags)
    yield from references.models.check_sources(objects, kustomizations.render(root / "kserve" / "overlays" / "gpu"))


@lru_cache(maxsize=10_000)
def _problems_of_shape(thing: Object) -> tuple[str, ...]:
    """Cached, as the next: most objects are the same in many folders."""
    return (*schemas.check(thing), *typed.check(thing))


@lru_cache(maxsize=10_000)
def _problems_of_values(thing: Object) -> tuple[str, ...]:
    checks = (values.check, metadata.check, images.check, knative.check, settings.check)
    return tuple(problem for check in checks for problem in check(thing))
