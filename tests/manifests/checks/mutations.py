"""Typing errors in the manifests' sources: each of a sort and at a place drawn by chance."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.manifests.checks.kustomizations import FOLDERS

Sort = Literal["renamed key", "wrong type", "dangling name", "wrong port"]
SORTS: tuple[Sort, ...] = ("renamed key", "wrong type", "dangling name", "wrong port")

Place = tuple[str | int, ...]

NAMES = ("text", "image", "web", "inbox", "redis", "default", "text-model", "image-model", "artifacts")
"""Names that are in use: one instead of another has the right form, and is still wrong."""
PORTS = (80, 6379, 8012, 8080, 9090)

NOBODY_REFERS_TO = {
    "EventPolicy", "HTTPRoute", "Ingress", "LimitRange", "LocalModelCache", "NetworkPolicy", "PingSource",
    "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "ResourceQuota", "RoleBinding", "ServingRuntime",
    "SinkBinding",
    "Namespace",  # kustomize replaces it
}  # fmt: skip
FREE = re.compile(
    r"^description$|spec\.(description|timezone|schedule)$|"  # for people, or anything is allowed
    r"groups\.\d+\.(name|rules\.\d+\.)|configMapGenerator\.\d+\.name|"  # tests/manifests/monitoring reads these
    r"parentRefs|hostnames|\.host$|data\.bootstrap|storageClassName|local\.path|newName|"  # the user's own values
    r"^(metadata\.)?namespace$"  # any is right, and all else follows it
)
"""Paths of texts that may have any value, so that no change is an error."""


@dataclass(frozen=True)
class Mutation:
    file: Path
    sort: Sort
    document: int
    """Its index in the file."""
    place: Place

    def __str__(self) -> str:
        return f"{self.sort} in {self.file}: {'.'.join(map(str, self.place))}"

    def text(self, root: Path, chance: random.Random) -> str:
        """The contents of the file with the typing error."""
        documents = list(yaml.safe_load_all((root / self.file).read_text()))
        parent = _at(documents[self.document], self.place[:-1])
        key = self.place[-1]
        if self.sort == "renamed key":
            items = [(_misspelt(str(name), chance) if name == key else name, value) for name, value in parent.items()]
            parent.clear()
            parent.update(items)
        elif self.sort == "wrong type":
            parent[key] = _of_another_type(parent[key], chance, quotes=self._quotes_matter(documents[self.document]))
        elif self.sort == "dangling name":
            parent[key] = _another_name(parent[key], chance)
        else:
            parent[key] = _another_port(parent[key], chance)
        return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)

    def _quotes_matter(self, document: Any) -> bool:
        """kustomize itself quotes annotations, and Kubernetes accepts quantities with and without quotes."""
        patched = _at(document, self.place[:1]).get("path", "") if isinstance(document, list) else ""
        place = " ".join(map(str, [patched, *self.place]))
        return re.search(r"annotations|limits|requests", place) is None


def draw(root: Path, count: int, seed: int) -> Iterator[Mutation]:
    """All sorts equally often, and all places of a sort with equal probability."""
    chance = random.Random(seed)
    places = list(_places(root))
    for number in range(count):
        sort = SORTS[number % len(SORTS)]
        yield chance.choice([place for place in places if place.sort == sort])


def _places(root: Path) -> Iterator[Mutation]:
    for file in sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.yaml")):
        name = file.relative_to(root)
        if "test-" in str(name):
            continue
        for number, document in enumerate(yaml.safe_load_all(file.read_text())):
            for place, value in _walk(document):
                yield from (Mutation(name, sort, number, place) for sort in _sorts(document, place, value))


def _walk(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    if place:
        yield place, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _walk(item, (*place, key))


def _sorts(document: Any, place: Place, value: Any) -> Iterator[Sort]:
    key = place[-1]
    if isinstance(key, str):
        yield "renamed key"
    if value is None or (key == "value" and _at(document, place[:-1]).get("name") == "NAMESPACE"):
        return  # kustomize fills it in
    yield "wrong type"
    if isinstance(value, str) and not _is_free(document, place):
        yield "dangling name"
    if ("port" in str(key).lower() and isinstance(value, int)) or (
        isinstance(value, str) and re.search(r":\d{4}\b", value) and not _is_free(document, place)
    ):
        yield "wrong port"


def _is_free(document: Any, place: Place) -> bool:
    path = ".".join(map(str, place))
    kind = document.get("kind") if isinstance(document, dict) else None
    return FREE.search(path) is not None or (path == "metadata.name" and kind in NOBODY_REFERS_TO)


def _at(document: Any, place: Place) -> Any:
    for key in place:
        document = document[key]
    return document


def _misspelt(text: str, chance: random.Random) -> str:
    """With one letter too many or too few, so that it keeps its form where possible. Digits stay: another number may be
    a valid setting."""
    letters = [at for at, letter in enumerate(text) if not letter.isdigit()]
    if len(letters) > 1 and chance.random() < 0.5:
        at = chance.choice(letters)
        return text[:at] + text[at + 1 :]
    at = chance.randrange(len(text) + 1)
    return f"{text[:at]}{chance.choice('aeiou')}{text[at:]}"


def _another_name(text: str, chance: random.Random) -> str:
    if text in NAMES and chance.random() < 0.5:
        return chance.choice([name for name in NAMES if name != text])
    return _misspelt(text, chance)


def _of_another_type(value: Any, chance: random.Random, quotes: bool) -> Any:
    """A value of another type; half of the time the same value with or without quotes, if those matter."""
    if isinstance(value, dict | list):
        return "something"
    if quotes and chance.random() < 0.5:
        if isinstance(value, bool | int):
            return json.dumps(value)
        if value.isdecimal() or value in ("true", "false"):
            return json.loads(value)
    if isinstance(value, bool):
        return "perhaps"
    return {"value": value} if isinstance(value, str) else f"{value}x"


def _another_port(value: Any, chance: random.Random) -> Any:
    number = value if isinstance(value, int) else int(re.findall(r":(\d{4})\b", value)[0])
    other = chance.choice([port for port in (number + 1, *PORTS) if port != number])
    return other if isinstance(value, int) else value.replace(f":{number}", f":{other}")
