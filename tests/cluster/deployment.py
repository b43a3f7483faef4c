"""Puts an overlay into a namespace of the tests' own, and waits until what was applied is what serves."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import PAUSE_SECONDS, Cluster, conditions
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

READY_SECONDS = 1800.0
"""Pulling images and loading models, for the slowest cluster."""

APPLY_SECONDS = 300.0
"""Webhooks of a new cluster may not answer yet."""

STAMP = "shangcai.ai/tests"
"""Annotation of revisions: which application they come from. KServe takes an InferenceService's over into its Knative
Service, but does not count them: its observedGeneration is the Knative Service's (kserve/kserve
pkg/apis/serving/v1beta1/inference_service_status.go), so that only this tells whether it has seen a change."""

SHORT_RETENTION = ROOT / "tests" / "cluster" / "short-retention"
KNATIVE_SERVICE = "services.serving.knative.dev"
READY_KINDS = {
    ("serving.knative.dev", "Service"): KNATIVE_SERVICE,
    ("serving.kserve.io", "InferenceService"): "inferenceservices.serving.kserve.io",
    ("eventing.knative.dev", "Broker"): "brokers.eventing.knative.dev",
    ("eventing.knative.dev", "Trigger"): "triggers.eventing.knative.dev",
    ("sources.knative.dev", "SinkBinding"): "sinkbindings.sources.knative.dev",
    ("apps", "Deployment"): "deployments.apps",
    ("apps", "StatefulSet"): "statefulsets.apps",
    ("batch", "Job"): "jobs.batch",
}
"""Kinds whose status is waited for, and how kubectl calls them."""


def render(overlay: Path, namespace: str, stamp: str = "", folder: Path | None = None) -> list[Any]:
    """The documents of an overlay in that namespace, with the short retention.

    With a `stamp` each of its revisions is a new one. The kustomization is left in `folder`.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return render(overlay, namespace, stamp, Path(temporary))
    folder = folder.resolve()
    annotations = {"annotations": {STAMP: stamp}}
    named = {"apiVersion": "any", "kind": "any", "metadata": {"name": "any"}}
    model = {**named, "metadata": {"name": "any", **annotations}}
    service = {**named, "spec": {"template": {"metadata": annotations}}}
    patches = [
        {"target": {"kind": "InferenceService"}, "patch": json.dumps(model)},
        {"target": {"group": "serving.knative.dev", "kind": "Service"}, "patch": json.dumps(service)},
    ]
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(overlay, folder)],
        "components": [os.path.relpath(SHORT_RETENTION, folder)],
        "namespace": namespace,
        "patches": patches if stamp else [],
        "replacements": [
            {
                "source": {"kind": "Namespace", "fieldPath": "metadata.name"},
                "targets": [
                    {
                        "select": {"group": "serving.knative.dev", "kind": "Service"},
                        "fieldPaths": ["spec.template.spec.containers.[name=web].env.[name=NAMESPACE].value"],
                    }
                ],
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    ended = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return list(yaml.safe_load_all(ended.stdout))


def apply(cluster: Cluster, overlay: Path) -> list[Any]:
    """Apply an overlay, and wait until new revisions of all its services serve. The documents."""
    stamp = uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory() as folder:
        documents = render(overlay, cluster.namespace, stamp, Path(folder))
        said = ""

        def applied() -> bool:
            nonlocal said
            try:
                cluster.run("apply", "-k", folder, seconds=APPLY_SECONDS)
            except AssertionError as error:
                said = str(error)
                return False
            return True

        try:
            wait_until(applied, "it is applied", APPLY_SECONDS, pause=5)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{said}") from None
    left = ""

    def ready() -> bool:
        nonlocal left
        left = ", ".join(waiting(cluster, documents, stamp))
        return not left

    try:
        wait_until(ready, "all is ready", READY_SECONDS, pause=PAUSE_SECONDS)
    except AssertionError:
        raise AssertionError(f"not ready after {READY_SECONDS:g} s: {left}") from None
    return documents


def waiting(cluster: Cluster, documents: Sequence[Any], stamp: str) -> list[str]:
    """What of these documents is not ready, or not what was applied with that stamp."""
    wanted = set()
    for item in documents:
        pair = item["apiVersion"].partition("/")[0], item["kind"]
        if pair in READY_KINDS:
            wanted.add((*pair, item["metadata"]["name"]))
        if item["kind"] == "InferenceService":
            wanted.add(("serving.knative.dev", "Service", f"{item['metadata']['name']}-predictor"))
    kinds = ",".join(sorted({READY_KINDS[group, kind] for group, kind, _ in wanted}))
    found = {
        (item["apiVersion"].partition("/")[0], item["kind"], item["metadata"]["name"]): item
        for item in cluster.get(kinds)["items"]
    }
    return [
        f"{kind} {name}"
        for group, kind, name in sorted(wanted)
        if (group, kind, name) not in found or not is_ready(found[group, kind, name], stamp)
    ]


def is_ready(item: Any, stamp: str) -> bool:
    status = item.get("status") or {}
    if item["kind"] == "Job":
        return conditions(item).get("Complete") == "True"
    if item["kind"] == "InferenceService":
        return conditions(item).get("Ready") == "True"
    generation: int = item["metadata"]["generation"]
    if status.get("observedGeneration", 0) < generation:
        return False
    if item["kind"] in ("Deployment", "StatefulSet"):
        wanted: int = item["spec"].get("replicas", 1)
        running: int = min(status.get("updatedReplicas", 0), status.get("readyReplicas", 0))
        return running >= wanted
    if item["kind"] == "Service":
        template = item["spec"]["template"]["metadata"].get("annotations") or {}
        rolled_out = status.get("latestCreatedRevisionName") == status.get("latestReadyRevisionName")
        if template.get(STAMP) != stamp or not rolled_out:
            return False
    return conditions(item).get("Ready") == "True"


def remove(cluster: Cluster, documents: Sequence[Any], but_not: Sequence[Any]) -> None:
    """Delete what one set of documents has and the other has not."""
    kept = {(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in but_not}
    gone = [item for item in documents if (item["apiVersion"], item["kind"], item["metadata"]["name"]) not in kept]
    if gone:
        cluster.run("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=yaml.safe_dump_all(gone))
