"""Builds the images, and loads them into the cluster's node."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scripts.cluster.kubectl import Kubectl
from scripts.project import version

PREFIX = "dev.local/shangcai"
"""Of a registry that Knative does not ask for digests, since there is none: the images are on the node."""

SYSTEM = "kube-system"
"""The namespace that remembers which images are on the node."""


def load_images(kubectl: Kubectl, build: bool, build_flags: list[str]) -> None:
    """Build the images if there are none or `build` says so, and load them if they have changed; raises a Failure."""
    cluster, commands = kubectl.cluster, kubectl.cluster.commands
    images = [f"{PREFIX}/{image}:{version()}" for image in ("web", "predictor")]
    inspect = [cluster.engine, "image", "inspect", "--format", "{{.Id}}", *images]
    ids = None if build else commands.ask(inspect)
    if ids is None:
        kubectl.say("building the images")
        command = ["scripts/build-images", "--tool", cluster.engine, "--prefix", PREFIX, "--torch", "cpu", *build_flags]
        commands.run(command, "building the images", kubectl.seconds, shown=True)
        ids = commands.ask(inspect) or ""
    mark = " ".join(ids.split())
    if mark and kubectl.installed(SYSTEM) == mark:
        kubectl.say("the images are on the node")
        return
    kubectl.say("bringing the images onto the node")
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path("/tmp" if commands.dry else folder) / "images.tar")  # noqa: S108 (printed only)
        command = [cluster.engine, "save", "--output", archive, *images]
        commands.run(command, "saving the images", kubectl.seconds)
        cluster.load(archive, kubectl.seconds)
    kubectl.record_installed("the images", SYSTEM, mark)
