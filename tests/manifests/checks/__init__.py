"""What may stand in our manifests, and how they hang together: the specification of the deployment.

`problems` renders every kustomization with the real kustomize and checks what comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
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
    """What is wrong with the manifests below `root`, one line each and folder by folder; nothing if all is well."""
    flags = kustomizations.flags(root)
    for folder in kustomizations.all_of(root) if folders is None else folders:
        where = kustomizations.name(root, folder)
        try:
            yield from (f"{where}: {problem}" for problem in _problems(root, folder, flags))
        except kustomizations.RenderError as error:
            yield f"{where}: {error}"
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            yield f"{where}: something is not where it must be: {error!r}"


def _problems(root: Path, folder: Path, flags: Collection[str]) -> Iterator[str]:
    objects = kustomizations.render(folder)
    shape = [f"{thing.title}: {problem}" for thing in objects for problem in _misshapen(thing)]
    yield from shape
    if shape:  # the rest relies on it
        return
    for thing in objects:
        for check in (values.check, metadata.check, images.check, knative.check, settings.check):
            yield from (f"{thing.title}: {problem}" for problem in check(thing))
    yield from kustomizations.check_operations(folder)
    yield from kustomizations.check_targets(folder, objects)
    yield from references.check(objects, complete=folder.parent.name == "deploy")
    yield from knative.check_flags(objects, flags)
    if any(thing.kind == "Job.batch" for thing in objects):
        yield from references.check_downloads(objects, kustomizations.render(root / "kserve" / "overlays" / "gpu"))


def _misshapen(thing: Object) -> Iterator[str]:
    yield from schemas.check(thing)
    yield from typed.check(thing)
