"""What a cluster says through kubectl, and what can be found in it."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any, Literal

from scripts.cluster.doctor.requirements import Document

KUBECTL_SECONDS = 10.0

SETTINGS = "kubectl apply --server-side --force-conflicts --field-manager=shangcai -k knative/cluster"
"""What mends a setting of Knative."""

Mark = Literal["ok", "wrong", "note"]


@dataclass(frozen=True)
class Finding:
    mark: Mark
    what: str
    mend: str = ""


class Unreachable(Exception):
    """The cluster does not answer; said in one line."""


class NotThere(Exception):
    """What was asked for is not there, or may not be seen; said in one line."""


class View:
    """Questions to the API server."""

    def __init__(self, context: str | None) -> None:
        timeout = f"--request-timeout={KUBECTL_SECONDS:.0f}s"
        self.base = ["kubectl", timeout, *(["--context", context] if context else [])]
        self._config_maps: dict[str, dict[str, dict[str, str]]] = {}

    def text(self, *arguments: str) -> str:
        try:
            ended = subprocess.run(
                [*self.base, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=KUBECTL_SECONDS + 5,
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(f"`kubectl {' '.join(arguments)}` was not answered in {KUBECTL_SECONDS:.0f} s") from None
        if ended.returncode:
            raise NotThere((ended.stderr.strip() or ended.stdout.strip() or "no reason given").splitlines()[-1])
        return ended.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments))

    def get(self, *arguments: str) -> Any:
        return self.json("get", *arguments, "-o", "json")

    def items(self, *arguments: str) -> list[Document]:
        found: list[Document] = self.get(*arguments)["items"]
        return found

    def allowed(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether whoever asks may; kubectl ends with 1 where not."""
        try:
            return self.text("auth", "can-i", verb, resource, "-n", namespace).strip() == "yes"
        except NotThere:
            return False

    def deployments(self, namespace: str) -> list[Document]:
        return self.items("deployments", "-n", namespace)

    def config_maps(self, namespace: str) -> dict[str, dict[str, str]]:
        """Their data by their names; asked for once."""
        if namespace not in self._config_maps:
            items = self.items("configmaps", "-n", namespace)
            self._config_maps[namespace] = {item["metadata"]["name"]: item.get("data") or {} for item in items}
        return self._config_maps[namespace]


def at_least(name: str, version: str, minimum: tuple[int, ...]) -> Finding:
    wanted = ".".join(map(str, minimum))
    if (found := numbers(version)) is None:
        return Finding("note", f"{name} does not say which version it is ({version or 'no label'}); {wanted} is needed")
    if found < minimum:
        return Finding("wrong", f"{name} {version} is too old; {wanted} is needed", f"upgrade {name}")
    return Finding("ok", f"{name} {version}")


def numbers(version: str) -> tuple[int, ...] | None:
    """1.21 of v1.21.1; None of devel."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def version_of(deployment: Document) -> str:
    """By Knative's label; KServe's manifests have only the image's tag."""
    label: str = (deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/version", "")
    containers = deployment["spec"]["template"]["spec"]["containers"]
    image: str = next((item["image"] for item in containers if item["name"] == "manager"), "").partition("@")[0]
    return label or (image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else "")


def available(deployment: Document) -> bool:
    """Whether one of its pods runs, or none is wanted."""
    wanted: int = deployment["spec"].get("replicas", 1)
    running: int = deployment.get("status", {}).get("availableReplicas", 0)
    return running > 0 or wanted == 0
