"""The documents that an overlay renders to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RENDER_SECONDS = 60.0

Document = dict[str, Any]


class Unreadable(Exception):
    """An overlay does not render, told in one line."""


def render(overlay: str) -> list[Document]:
    """The documents of an overlay; raises an Unreadable.

    kubectl also converts them to JSON, since a bare Python cannot read YAML.
    """
    if not Path(overlay).is_dir():
        raise Unreadable(f"there is no overlay {overlay}")
    try:
        rendered = subprocess.run(
            ["kubectl", "kustomize", overlay], capture_output=True, text=True, timeout=RENDER_SECONDS
        )
        # `annotate --local` prints any kind as JSON without asking a server; the annotation does not matter.
        printed = subprocess.run(
            ["kubectl", "annotate", "--local", "-f", "-", "-o", "json", "shangcai.ai/read-by=doctor"],
            input=rendered.stdout,
            capture_output=True,
            text=True,
            timeout=RENDER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreadable(f"{overlay}: `kubectl {error.cmd[1]}` took longer than {RENDER_SECONDS:.0f} s") from None
    for step in (rendered, printed):
        if step.returncode:
            said = (step.stderr.strip() or "it does not say why").splitlines()[-1]
            raise Unreadable(f"{overlay} does not render: {said}")
    return list(split_documents(printed.stdout))


def split_documents(text: str) -> Iterator[Document]:
    """JSON documents that follow each other without a separator."""
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        yield document
        position += len(text[position:]) - len(text[position:].lstrip())


def group_of(item: Document) -> str:
    """The API group; empty for the core group."""
    group, slash, _ = item["apiVersion"].partition("/")
    return group if slash else ""


def name_of(item: Document) -> str:
    """Kind and name."""
    return f"{item['kind']} {item['metadata']['name']}"


def annotations_of(item: Document) -> dict[str, str]:
    return item.get("metadata", {}).get("annotations") or {}


def labels_of(item: Document) -> dict[str, str]:
    return item.get("metadata", {}).get("labels") or {}


def mode_of(item: Document) -> str:
    """The deployment mode of an InferenceService; empty for the cluster's default."""
    return annotations_of(item).get("serving.kserve.io/deploymentMode", "")


def broker_class(broker: Document) -> str:
    """The class of a Broker; empty for the cluster's default."""
    return annotations_of(broker).get("eventing.knative.dev/broker.class", "")
