"""What a check of doctor has found, in a line of the report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

APPLY_SETTINGS = "kubectl apply --server-side --force-conflicts --field-manager=shangcai -k knative/cluster"
"""Corrects a setting of Knative."""

Verdict = Literal["ok", "wrong", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `fix` says what to do about what is wrong."""

    verdict: Verdict
    text: str
    fix: str = ""


def at_least(name: str, version: str, minimum: tuple[int, int]) -> Finding:
    """Whether a version is the minimum (major, minor) or later."""
    wanted = ".".join(map(str, minimum))
    if (found := major_minor(version)) is None:
        return Finding("note", f"{name} does not say which version it is ({version or 'no label'}); {wanted} is needed")
    if found < minimum:
        return Finding("wrong", f"{name} {version} is too old; {wanted} is needed", f"upgrade {name}")
    return Finding("ok", f"{name} {version}")


def major_minor(version: str) -> tuple[int, int] | None:
    """(1, 21) for v1.21.1; None for a version without numbers, such as devel."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None
