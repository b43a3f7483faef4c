"""Folders that are applied with `kubectl apply -k`, rendered by kubectl's own kustomize."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.manifests.checks.objects import Object

ROOMS = ("kserve", "knative", "deploy")
FILE = "kustomization.yaml"
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"
"""The one that we have pinned, whatever else is on the PATH."""


class RenderError(Exception):
    """What kustomize says."""


def all_of(root: Path) -> list[Path]:
    """All folders to apply; components are none, and are looked at where they are used."""
    found = [file.parent for room in ROOMS for file in sorted((root / room).rglob(FILE))]
    return [folder for folder in found if "kind: Component" not in (folder / FILE).read_text()]


def name(root: Path, folder: Path) -> str:
    return str(folder.relative_to(root))


def render(folder: Path) -> list[Object]:
    answer = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True)
    if answer.returncode or answer.stderr:  # a warning is an error
        raise RenderError(answer.stderr.strip().splitlines()[-1])
    try:
        documents = list(yaml.load_all(answer.stdout, yaml.CSafeLoader))
    except yaml.YAMLError as error:
        raise RenderError(str(error).replace("\n", " ")) from None
    return [Object(document) for document in documents]


def sources(folder: Path) -> Iterator[Path]:
    """The files that a folder is rendered from, those of other folders included."""
    yield folder / FILE
    document = yaml.safe_load((folder / FILE).read_text())
    for entry in [*document.get("resources", []), *document.get("components", [])]:
        path = (folder / entry).resolve()
        if path.is_dir():
            yield from sources(path)
        else:
            yield path
    yield from (folder / patch["path"] for patch in document.get("patches", []) if "path" in patch)


OPERATIONS = {
    "add": {"op", "path", "value"},
    "replace": {"op", "path", "value"},
    "test": {"op", "path", "value"},
    "remove": {"op", "path"},
}


def check_operations(folder: Path) -> Iterator[str]:
    """Patches in JSON: kustomize takes a missing value for null, and leaves out what stands before a path's first /."""
    for file in dict.fromkeys(sources(folder)):
        patch = yaml.safe_load(file.read_text()) if file.name != FILE and file.read_text().startswith("- ") else []
        for operation in patch:
            if OPERATIONS.get(operation.get("op")) != set(operation) or not str(operation["path"]).startswith("/"):
                yield f"{file.parent.name}/{file.name}: {operation} is no operation"


def check_targets(folder: Path, objects: list[Object]) -> Iterator[str]:
    """A patch, replacement or image that finds nothing to change is no error to kustomize."""
    for file in dict.fromkeys(sources(folder)):
        if file.name != FILE:
            continue
        document = yaml.safe_load(file.read_text())
        for patch in document.get("patches", []):
            for target in _each(patch["target"]) if "target" in patch else ():
                if not any(_selects(target, thing) for thing in objects):
                    yield f"{file.parent.name}/{FILE}: the patch {patch.get('path')} has no target {target}"
        for replacement in document.get("replacements", []):
            for target in replacement["targets"]:
                if not any(_selects(target["select"], thing) for thing in objects):
                    yield f"{file.parent.name}/{FILE}: a replacement has no target {target['select']}"
        if file.parent == folder:
            images = [container["image"] for thing in objects for container in thing.containers]
            for image in document.get("images", []):
                if not any(used.startswith(f"{image['newName']}:") for used in images):
                    yield f"{FILE}: there is no image {image['name']}"


def _each(target: dict[str, str]) -> list[dict[str, str]]:
    """One for each name, where they are written (text|image)-requests."""
    names = re.fullmatch(r"\(([^()]+)\)(.*)", target.get("name", ""))
    return [target | {"name": name + names[2]} for name in names[1].split("|")] if names else [target]


def _selects(target: dict[str, str], thing: Object) -> bool:
    group = thing.kind.partition(".")[2]
    kind = thing.document["kind"]
    wanted = {"kind": kind, "group": group, "version": thing.version, "name": thing.name}
    return all(re.fullmatch(target[key], value) for key, value in wanted.items() if key in target)


def flags(root: Path) -> frozenset[str]:
    """Feature flags that knative/cluster switches on."""
    try:
        objects = render(root / "knative" / "cluster")
    except RenderError:  # told where that folder is looked at
        return frozenset()
    found = [thing.document.get("data") for thing in objects if thing.name == "config-features"]
    return frozenset(
        key for data in found if isinstance(data, dict) for key, value in data.items() if value == "enabled"
    )
