"""The state of a cluster, asked for through kubectl."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from scripts.cluster.doctor.manifests import Document

KUBECTL_SECONDS = 10.0


class Unreachable(Exception):
    """The cluster does not answer, told in one line."""


class NotFound(Exception):
    """An object does not exist or may not be read, told in one line."""


class ClusterState:
    """Answers of the API server. All methods raise an Unreachable if it gives none."""

    def __init__(self, context: str | None) -> None:
        timeout = f"--request-timeout={KUBECTL_SECONDS:.0f}s"
        self.base = ["kubectl", timeout, *(["--context", context] if context else [])]
        self._config_maps: dict[str, dict[str, dict[str, str]]] = {}

    def text(self, *arguments: str) -> str:
        """What a kubectl prints; raises a NotFound if it fails."""
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
            raise NotFound((ended.stderr.strip() or ended.stdout.strip() or "no reason given").splitlines()[-1])
        return ended.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments))

    def get(self, *arguments: str) -> Any:
        return self.json("get", *arguments, "-o", "json")

    def items(self, *arguments: str) -> list[Document]:
        found: list[Document] = self.get(*arguments)["items"]
        return found

    def allowed(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether the user may; if not, kubectl ends with 1."""
        try:
            return self.text("auth", "can-i", verb, resource, "-n", namespace).strip() == "yes"
        except NotFound:
            return False

    def deployments(self, namespace: str) -> list[Document]:
        return self.items("deployments", "-n", namespace)

    def config_maps(self, namespace: str) -> dict[str, dict[str, str]]:
        """Their data by their names; asked for only once."""
        if namespace not in self._config_maps:
            items = self.items("configmaps", "-n", namespace)
            self._config_maps[namespace] = {item["metadata"]["name"]: item.get("data") or {} for item in items}
        return self._config_maps[namespace]


def version_of(deployment: Document) -> str:
    """From the label that Knative sets, or from the image's tag, which is all that KServe's manifests have."""
    label: str = (deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/version", "")
    containers = deployment["spec"]["template"]["spec"]["containers"]
    image: str = next((item["image"] for item in containers if item["name"] == "manager"), "").partition("@")[0]
    return label or (image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else "")


def available(deployment: Document) -> bool:
    """Whether at least one of its pods is available, or none is wanted."""
    wanted: int = deployment["spec"].get("replicas", 1)
    running: int = deployment.get("status", {}).get("availableReplicas", 0)
    return running > 0 or wanted == 0
