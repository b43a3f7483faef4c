"""Folders that are applied with `kubectl apply -k`, rendered by kubectl's own kustomize."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import yaml

from tests.manifests.checks.objects import Object

FOLDERS = ("kserve", "knative", "deploy")
FILE = "kustomization.yaml"
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"
"""The pinned one, whichever is on the PATH."""


class RenderError(Exception):
    """kustomize failed; the message is its own."""


def all_of(root: Path) -> list[Path]:
    """All folders that can be applied. Components cannot: they are checked where they are used."""
    found = [file.parent for folder in FOLDERS for file in sorted((root / folder).rglob(FILE))]
    return [folder for folder in found if "kind: Component" not in (folder / FILE).read_text()]


def name(root: Path, folder: Path) -> str:
    return str(folder.relative_to(root))


def render(folder: Path) -> list[Object]:
    """The objects of a folder. They are shared by all who render the same sources: copy before a change."""
    try:
        contents = tuple((str(file), file.read_bytes()) for file in dict.fromkeys(sources(folder)))
    except (OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError):
        contents = ()  # kustomize says what is wrong
    return list((_render if contents else _render.__wrapped__)(folder, contents))


@lru_cache(maxsize=1000)
def _render(folder: Path, contents: tuple[tuple[str, bytes], ...]) -> tuple[Object, ...]:
    """Render a folder; `contents` only tells whether that is known already."""
    answer = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True)
    if answer.returncode or answer.stderr:  # a warning is an error
        raise RenderError(answer.stderr.strip().splitlines()[-1])
    try:
        documents = list(yaml.load_all(answer.stdout, yaml.CSafeLoader))
    except yaml.YAMLError as error:
        raise RenderError(str(error).replace("\n", " ")) from None
    return tuple(Object(document) for document in documents)


def sources(folder: Path) -> Iterator[Path]:
    """The files that a folder is rendered from, those of other folders included."""
    yield folder / FILE
    document = yaml.load((folder / FILE).read_bytes(), yaml.CSafeLoader)
    for entry in [*document.get("resources", []), *document.get("components", [])]:
        path = (folder / entry).resolve()
        if path.is_dir():
            yield from sources(path)
        else:
            yield path
    for generator in document.get("configMapGenerator", []):
        yield from (folder / file for file in generator["files"])
    yield from (folder / patch["path"] for patch in document.get("patches", []) if "path" in patch)


OPERATIONS = {
    "add": {"op", "path", "value"},
    "replace": {"op", "path", "value"},
    "test": {"op", "path", "value"},
    "remove": {"op", "path"},
}


def check_operations(folder: Path) -> Iterator[str]:
    """JSON patches: kustomize reads a missing value as null, and ignores what is before the first / of a path."""
    for file in dict.fromkeys(sources(folder)):
        if file.name == FILE or not file.read_text().startswith("- "):
            continue
        for operation in yaml.load(file.read_bytes(), yaml.CSafeLoader):
            if OPERATIONS.get(operation.get("op")) != set(operation) or not str(operation["path"]).startswith("/"):
                yield f"{file.parent.name}/{file.name}: {operation} is no operation"


def check_targets(folder: Path, objects: list[Object]) -> Iterator[str]:
    """Patches, replacements and images that change nothing: kustomize reports no error."""
    for file in dict.fromkeys(sources(folder)):
        if file.name != FILE:
            continue
        document = yaml.load(file.read_bytes(), yaml.CSafeLoader)
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
    """One target for each name of a pattern such as (text|image)-requests."""
    names = re.fullmatch(r"\(([^()]+)\)(.*)", target.get("name", ""))
    return [target | {"name": name + names[2]} for name in names[1].split("|")] if names else [target]


def _selects(target: dict[str, str], thing: Object) -> bool:
    group = thing.kind.partition(".")[2]
    kind = thing.document["kind"]
    wanted = {"kind": kind, "group": group, "version": thing.version, "name": thing.name}
    named = all(re.fullmatch(target[key], value) for key, value in wanted.items() if key in target)
    return named and _has_labels(target.get("labelSelector", ""), thing.labels)


def _has_labels(selector: str, labels: dict[str, str]) -> bool:
    """Of the forms that are used here: NAME=VALUE and NAME in (VALUE, VALUE)."""
    if not selector:
        return True
    name, values = re.fullmatch(r"([\w./-]+)(?:=| in )(.+)", selector).groups()  # type: ignore[union-attr]
    return labels.get(name) in re.split(", *", values.strip("()"))


def flags(root: Path) -> frozenset[str]:
    """Feature flags that knative/cluster switches on."""
    objects = []
    for folder in (root / "knative" / "cluster", root / "knative" / "cluster" / "eventing"):
        with suppress(RenderError):  # reported for that folder itself
            objects += render(folder)
    found = [thing.document.get("data") for thing in objects if thing.name == "config-features"]
    return frozenset(
        key for data in found if isinstance(data, dict) for key, value in data.items() if value == "enabled"
    )
