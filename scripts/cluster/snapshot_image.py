"""The predictor's image with a snapshot of a loaded model, which a pod with kserve/overlays/restore begins from.

A step of a build has a seccomp filter, under which nothing can be dumped. So a container of the image is run without
one, as root and with CAPABILITIES, and committed.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ENTRYPOINT = ["/opt/venv/bin/python", "-S", "-m", "predictor.snapshot"]
USER = "65532:65532"
CAPABILITIES = ("CHECKPOINT_RESTORE", "SYS_PTRACE", "SYS_ADMIN")
"""That a dump needs beside those that root has in a container: for criu, and for a host name that says nothing."""

IMAGES = "/snapshot"
MODELS = "/app/models"
"""Where the image has its embedded models."""

Run = Callable[[list[str]], None]
Output = Callable[[list[str]], str]


@dataclass(frozen=True)
class Checkpoint:
    """One --checkpoint as it was `said`: the model, and flags of the predictor."""

    said: str
    model: str
    flags: tuple[str, ...]

    @classmethod
    def parse(cls, said: str) -> Checkpoint:
        """Raises argparse's error for what cannot be read or names no model."""
        try:
            model, *flags = shlex.split(said) or [""]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{said!r} cannot be read: {error}") from None
        if not Path(model).name:
            raise argparse.ArgumentTypeError(f"{said!r} names no model")
        return cls(said, model, tuple(flags))

    @property
    def name(self) -> str:
        """Last part of its image's name."""
        return Path(self.model).name

    @property
    def base(self) -> str:
        """The same of the image that it is made in."""
        return f"{self.name}-base"

    @property
    def folder(self) -> str:
        """Of the model, in the image."""
        return self.model if self.model.startswith("/") else f"{MODELS}/{self.model}"


def clash(checkpoints: Sequence[Checkpoint]) -> str | None:
    """What is wrong where an image of one would take the name of another's, so that one of them would be lost."""
    taken: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        for name in (checkpoint.name, checkpoint.base):
            if other := taken.get(name):
                return f"{other.said!r} and {checkpoint.said!r} would have one name, {name}"
        taken |= {checkpoint.name: checkpoint, checkpoint.base: checkpoint}
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        action="append",
        type=Checkpoint.parse,
        default=[],
        metavar="'MODEL FLAGS'",
        help="make an image predictor:TAG-MODEL, too, with a snapshot of this model, loaded: an embedded one, or a "
        "folder of the image; FLAGS are those of the predictor, as in 'poet --slots 16 --memory 2Gi'. Needs root and "
        "Linux, and may be given again",
    )
    parser.add_argument(
        "--checkpoint-threads",
        type=int,
        default=2,
        metavar="N",
        help="SNAPSHOT_THREADS of the snapshots: the cores that a pod may use, which this machine must have, too "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--criu-base",
        default="debian:sid-slim",
        help="image that has CRIU 4.2 or later, or gets it by apt-get (default: %(default)s)",
    )


def snapshot(
    run: Run, output: Output, tool: str, predictor: str, checkpoint: Checkpoint, arguments: argparse.Namespace
) -> str:
    """Make the image of one --checkpoint from the image `predictor`; its name. Raises a Failure."""
    name, base = f"{predictor}-{checkpoint.name}", f"{predictor}-{checkpoint.base}"
    command = [tool, "build", "--tag", base, "--file", "predictor/snapshot.Dockerfile"]
    command += ["--build-arg", f"PREDICTOR={predictor}", "--build-arg", f"CRIU_BASE={arguments.criu_base}"]
    run([*command, *(["--layers"] if tool == "buildah" else []), "."])
    dump = ["/usr/bin/env", f"SNAPSHOT_THREADS={arguments.checkpoint_threads}", ENTRYPOINT[0], "-m", "predictor"]
    dump += ["dump", IMAGES, "--model", checkpoint.folder, *checkpoint.flags]
    if tool == "buildah":
        _with_buildah(run, output, base, name, dump)
    else:
        _with_engine(run, tool, base, name, dump)
    return name


def _with_buildah(run: Run, output: Output, base: str, name: str, dump: list[str]) -> None:
    container = output(["buildah", "from", "--security-opt", "seccomp=unconfined", base]).strip()
    added = [part for name in CAPABILITIES for part in ("--cap-add", f"CAP_{name}")]
    try:
        run(["buildah", "run", "--user", "0:0", *added, container, "--", *dump])
        run(["buildah", "commit", container, name])
    finally:
        run(["buildah", "rm", container])


def _with_engine(run: Run, tool: str, base: str, name: str, dump: list[str]) -> None:
    """With docker or podman."""
    container = name.replace("/", "-").replace(":", "-") + "-dump"
    options = ["--user", "0:0", "--network", "none", "--entrypoint", dump[0]]
    options += [part for name in CAPABILITIES for part in ("--cap-add", name)]
    options += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
    try:
        run([tool, "run", "--name", container, *options, base, *dump[1:]])
        changes = [f"USER {USER}", f"ENTRYPOINT {json.dumps(ENTRYPOINT)}", "CMD []"]
        run([tool, "commit", *(part for change in changes for part in ("--change", change)), container, name])
    finally:
        run([tool, "rm", "--force", container])
