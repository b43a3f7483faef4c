"""Which versions of an environment follow from constraints.txt, and which were just the newest when it was built."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@dataclass(frozen=True)
class Distribution:
    """An installed distribution, with the `Requires-Dist` entries of its metadata."""

    name: str
    version: str
    requirements: tuple[str, ...] = ()


def unlocked(
    distributions: Iterable[Distribution], constraints: Iterable[str], environment: dict[str, str] | None = None
) -> set[str]:
    """The normalized names of the distributions whose version is locked neither directly nor indirectly.

    A constraint locks the version that it names, local builds of it included: 2.13.0 locks 2.13.0+cpu. A locked
    distribution locks those that it requires exactly (==1.2.3 or ==1.2.*). Markers are evaluated for `environment`, by
    default for this machine.
    """
    found: dict[str, Distribution] = {canonicalize_name(each.name): each for each in distributions}
    tested: dict[str, str] = dict(_name_and_version(line) for line in constraints)
    locked = {name for name, each in found.items() if tested.get(name) == Version(each.version).public}
    waiting = [(name, "") for name in locked]
    visited = set()
    while waiting:
        name, extra = waiting.pop()
        visited.add((name, extra))
        for requirement in map(Requirement, found[name].requirements):
            if requirement.marker and not requirement.marker.evaluate({**(environment or {}), "extra": extra}):
                continue
            other: str = canonicalize_name(requirement.name)
            if other in found and other not in tested and _pins(requirement, found[other].version):
                locked.add(other)
            if other in locked:
                waiting += {(other, each) for each in ("", *requirement.extras)} - visited
    return set(found) - locked


def torch_constraints(dockerfile: str, constraints: str) -> list[str]:
    """The lines of constraints.txt that the predictor's Dockerfile copies to the stage that installs torch."""
    pattern = re.search(r"grep -iE '(.+)' /constraints.txt", dockerfile)
    assert pattern
    return [line for line in constraints.splitlines() if re.search(pattern[1], line, re.IGNORECASE)]


def _name_and_version(constraint: str) -> tuple[str, str]:
    name, _, version = constraint.partition("==")
    return canonicalize_name(name), version


def _pins(requirement: Requirement, version: str) -> bool:
    exact = any(each.operator == "==" for each in requirement.specifier)
    return exact and requirement.specifier.contains(version, prereleases=True)
