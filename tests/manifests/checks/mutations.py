"""Typing errors in the manifests' sources: one at a time, at a place and of a kind drawn by chance."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.manifests.checks.kustomizations import ROOMS

Sort = Literal["renamed key", "wrong type", "dangling name", "wrong port"]
SORTS: tuple[Sort, ...] = ("renamed key", "wrong type", "dangling name", "wrong port")

Place = tuple[str | int, ...]

NAMES = ("text", "image", "web", "inbox", "redis", "default", "models", "artifacts")
"""Each is somebody's: one in the place of another is of the right form and wrong all the same."""
PORTS = (80, 6379, 8012, 8080, 9090)

NOBODY_REFERS_TO = {
    "EventPolicy", "Ingress", "LocalModelCache", "NetworkPolicy", "PingSource", "PodDisruptionBudget", "ServingRuntime",
    "SinkBinding",
    "Namespace",  # kustomize writes in the one that the kustomization names
}  # fmt: skip
FREE = re.compile(
    r"spec\.(description|timezone|schedule)$|"  # read by people, or everything is allowed
    r"data\.bootstrap|rabbitmqClusterReference|storageClassName|local\.path|newName|"  # the user's own
    r"^(metadata\.)?namespace$"  # which may be any, and all else follows
)
"""Texts that may say anything, so that no change of them is an error."""


@dataclass(frozen=True)
class Mutation:
    file: Path
    sort: Sort
    document: int
    """Which of the file's."""
    place: Place

    def __str__(self) -> str:
        return f"{self.sort} in {self.file}: {'.'.join(map(str, self.place))}"

    def apply(self, root: Path, chance: random.Random) -> None:
        path = root / self.file
        documents = copy.deepcopy(list(yaml.safe_load_all(path.read_text())))
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
        path.write_text(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True))

    def _quotes_matter(self, document: Any) -> bool:
        """kustomize itself quotes annotations, and Kubernetes takes a quantity with and without."""
        patched = _at(document, self.place[:1]).get("path", "") if isinstance(document, list) else ""
        place = " ".join(map(str, [patched, *self.place]))
        return re.search(r"annotations|limits|requests", place) is None


def draw(root: Path, count: int, seed: int) -> Iterator[Mutation]:
    """As many of each sort, each place of a sort as likely as any other."""
    chance = random.Random(seed)
    places = list(_places(root))
    for number in range(count):
        sort = SORTS[number % len(SORTS)]
        yield chance.choice([place for place in places if place.sort == sort])


def _places(root: Path) -> Iterator[Mutation]:
    for file in sorted(file for room in ROOMS for file in (root / room).rglob("*.yaml")):
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
        return  # kustomize writes that in
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
    """With a letter too much or too few, at any place: still a text of the same form, where that is possible. Digits
    stay: another number is another setting, and may be meant."""
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
    """Of another kind, or half the time the same with or without quotes, if those matter."""
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
