"""Whether the cluster can have the images that an overlay names."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.checks.serving import NO_REGISTRIES
from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.requirements import Requirements

PLACEHOLDERS = ("shangcai/", "registry.example.com/")
"""How images begin that an overlay has not given a registry yet."""


def images(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    named = {image: pod.owner for pod in reversed(required.pods) for image in pod.images}
    unnamed = sorted(image for image in named if image.startswith(PLACEHOLDERS))
    if unnamed:
        what = f"{', '.join(unnamed)} {'is' if len(unnamed) == 1 else 'are'} in no registry that there is"
        yield Finding("note", what, "name yours in `images` of the overlay: kustomize edit set image")
    loaded = sorted(image for image in named if image.partition("/")[0] in NO_REGISTRIES)
    if not loaded:
        return
    try:
        nodes = cluster.items("nodes")
    except NotFound:
        return
    # A node names the 50 largest of its images at most.
    there = {name for node in nodes for image in node.get("status", {}).get("images") or [] for name in image["names"]}
    missing = [image for image in loaded if image not in there]
    if missing:
        what = f"no node says that it has {', '.join(missing)}, and there is no registry to pull from"
        yield Finding("note", what, "load it into the nodes: kind load docker-image, or minikube image load")
    else:
        yield Finding("ok", "the images that no registry has are on a node")
