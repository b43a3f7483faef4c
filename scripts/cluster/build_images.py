"""Build the container images with whatever there is for it: docker, podman or buildah.

scripts/build-images calls this. Runs on a bare Python: what goes into the images need not be installed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.cluster.commands import Failure
from scripts.cluster.snapshot_image import add_arguments, clash, snapshot
from scripts.progress import announced
from scripts.project import ROOT, version
from scripts.torch_index import reachable_index

IMAGES = ("web", "predictor")
TOOLS = ("docker", "podman", "buildah")


@dataclass(frozen=True)
class Layer:
    """What a step of a Dockerfile added; the size is in bytes."""

    size: int
    step: str


def main() -> int:
    arguments, passed_on = parse(sys.argv[1:])
    try:
        tool = find_tool(arguments.tool)
        images = arguments.image or IMAGES
        if arguments.torch == "cpu" and "predictor" in images and arguments.torch_index is None:
            arguments.torch_index = reachable_index()
        if len(arguments.platforms) > 1 or arguments.digests:
            digests = [build_and_push(tool, image, arguments, passed_on) for image in announced(images, "image")]
            if arguments.digests:
                arguments.digests.write_text("".join(f"{line}\n" for line in digests))
            return 0
        names = [build(tool, image, arguments, passed_on) for image in announced(images, "image")]
        predictor = f"{arguments.prefix}/predictor:{arguments.tag}"
        names += [snapshot(run, output, tool, predictor, each, arguments) for each in arguments.checkpoint]
        for name in names:
            print(describe(name, list(layers(tool, name))))
        if arguments.push:
            for name in announced(names, "push"):
                run([tool, "push", name])
    except Failure as failure:
        print(f"scripts/build-images: {failure}", file=sys.stderr)
        return 1
    return 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and what stands behind -- for the tool itself."""
    parser = argparse.ArgumentParser(
        prog="scripts/build-images",
        description="Build the images of web and predictor.",
        epilog="What stands behind -- goes to the tool's build command, such as -- --volume /wheels:/wheels:ro",
    )
    parser.add_argument("image", nargs="*", help=f"{' or '.join(IMAGES)} (default: both)")
    parser.add_argument("--tool", choices=TOOLS, help="what to build with (default: the first of them that works)")
    parser.add_argument(
        "--prefix", default="shangcai", help="registry and folder of their names (default: %(default)s)"
    )
    parser.add_argument("--tag", default=version(), help="(default: the version, %(default)s)")
    parser.add_argument("--base", help="image to build on: a Debian with Python 3.11 to 3.13 and its venv")
    parser.add_argument(
        "--torch",
        choices=("cuda", "cpu"),
        default="cuda",
        help="build of torch; cpu is gigabytes smaller, and is cuda where its index cannot be reached "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--torch-index", help="package index beside pip's own to take torch from, in the place of --torch"
    )
    parser.add_argument(
        "--pip-conf", type=Path, help="pip's configuration for the build (mirrors); in no image after it"
    )
    parser.add_argument("--source", default="", help="address of the source code, for the label")
    parser.add_argument(
        "--platform",
        default="",
        help="such as linux/amd64,linux/arm64 (default: this machine's). Others need QEMU here; docker needs buildx",
    )
    add_arguments(parser)
    parser.add_argument("--push", action="store_true", help="push them afterwards")
    parser.add_argument(
        "--digests",
        type=Path,
        metavar="FILE",
        help="write what was pushed there, a line NAME:TAG@DIGEST for each image",
    )
    split = argv.index("--") if "--" in argv else len(argv)
    arguments = parser.parse_args(argv[:split])
    for image in arguments.image:
        if image not in IMAGES:
            parser.error(f"there is no image {image!r}; there are {' and '.join(IMAGES)}")
    if arguments.pip_conf and not arguments.pip_conf.is_file():
        parser.error(f"--pip-conf: {arguments.pip_conf} is no file")
    host = arguments.prefix.partition("/")[0]
    if arguments.push and host != "localhost" and not {".", ":"} & set(host):
        parser.error(f"--push: {arguments.prefix} is in no registry of yours; --prefix names one")
    if arguments.checkpoint and arguments.image and "predictor" not in arguments.image:
        parser.error("--checkpoint: it is made of the image predictor, which is not among those that are built")
    if arguments.checkpoint and (arguments.platform or arguments.digests):
        parser.error("--checkpoint: a process is dumped on the platform of this machine; leave out the others")
    if clashing := clash(arguments.checkpoint):
        parser.error(f"--checkpoint: {clashing}")
    arguments.platforms = [platform for platform in arguments.platform.split(",") if platform]
    if arguments.digests and not arguments.push:
        parser.error("--digests: only a registry gives an image its digest; add --push")
    if len(arguments.platforms) > 1 and not arguments.push:
        parser.error(
            "--platform: an image of several platforms is made in a registry; add --push, or name one platform"
        )
    arguments.version = version()
    return arguments, argv[split + 1 :]


def find_tool(wanted: str | None) -> str:
    """The first tool that works, since docker is often a client without its engine; raises a Failure if none does."""
    reasons = []
    for tool in [wanted] if wanted else TOOLS:
        if shutil.which(tool) is None:
            reasons.append(f"{tool} is not on the PATH")
            continue
        answer = subprocess.run([tool, "info"], capture_output=True, text=True)
        if answer.returncode == 0:
            if reasons:
                print(f"building with {tool}: {'; '.join(reasons)}")
            return tool
        said = answer.stderr.strip().splitlines() or ["it does not say why"]
        reasons.append(f"{tool} does not work ({said[-1]})")
    raise Failure("; ".join(reasons))


def build(tool: str, image: str, arguments: argparse.Namespace, passed_on: list[str]) -> str:
    """Build one image; its name. Raises a Failure."""
    name = f"{arguments.prefix}/{image}:{arguments.tag}"
    command = [tool, "build", "--tag", name, *options(image, arguments)]
    if tool == "buildah":
        command.append("--layers")  # the others keep them without being asked
    run([*command, *passed_on, "."])
    return name


def build_and_push(tool: str, image: str, arguments: argparse.Namespace, passed_on: list[str]) -> str:
    """Build one image for each of the platforms and push it under one name; NAME:TAG@DIGEST. Raises a Failure."""
    name = f"{arguments.prefix}/{image}:{arguments.tag}"
    with TemporaryDirectory() as folder:
        written = Path(folder) / "digest"
        if tool == "docker":
            # docker's own store keeps one platform only, and nothing that is attested; buildx pushes what it has built.
            if subprocess.run([tool, "buildx", "version"], capture_output=True).returncode:
                raise Failure("docker needs its plugin buildx for --digests and for several platforms")
            command = [tool, "buildx", "build", "--tag", name, *options(image, arguments)]
            run([*command, "--push", "--metadata-file", str(written), *passed_on, "."])
            digest = json.loads(written.read_text())["containerimage.digest"]
        else:
            # A list left over from before would keep its old images beside the new ones.
            subprocess.run([tool, "manifest", "rm", name], cwd=ROOT, capture_output=True)
            command = [tool, "build", "--manifest", name, *options(image, arguments)]
            if tool == "buildah":
                command.append("--layers")
            run([*command, *passed_on, "."])
            run([tool, "manifest", "push", "--all", "--digestfile", str(written), name, f"docker://{name}"])
            digest = written.read_text().strip()
    return f"{name}@{digest}"


def options(image: str, arguments: argparse.Namespace) -> list[str]:
    """What all three tools take for one image."""
    values = {
        "BASE": arguments.base,
        "TORCH_INDEX": arguments.torch_index if image == "predictor" else None,
        "VERSION": arguments.version,
        "REVISION": revision(),
        "CREATED": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "SOURCE": arguments.source,
    }
    found = ["--file", f"{image}/Dockerfile"]
    found += [part for key, value in values.items() if value for part in ("--build-arg", f"{key}={value}")]
    if arguments.platforms:
        found += ["--platform", ",".join(arguments.platforms)]
    if arguments.pip_conf:
        found += ["--secret", f"id=pip.conf,src={arguments.pip_conf.resolve()}"]
    return found


def revision() -> str:
    """The commit; empty if this is no repository or git is not installed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def run(command: list[str]) -> None:
    print(f"+ {shlex.join(command)}", flush=True)
    if subprocess.run(command, cwd=ROOT).returncode:
        raise Failure(f"{command[0]} failed; its lines above say why")


def output(command: list[str]) -> str:
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        said = answer.stderr.strip().splitlines() or ["it does not say why"]
        raise Failure(f"{command[0]} {command[1]} failed ({said[-1]})")
    return answer.stdout


def layers(tool: str, name: str) -> Iterator[Layer]:
    """The layers of an image, those of its base first."""
    if tool != "buildah":
        history = output(
            [tool, "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", name]
        )
        for line in reversed(history.splitlines()):
            size, _, step = line.partition("\t")
            if int(size):
                yield Layer(int(size), step)
        return
    # buildah has no `history`: what it built is in its inspection, and the sizes are in the store beside it.
    store = json.loads(output([tool, "info"]))["store"]
    index = Path(store["GraphRoot"]) / f"{store['GraphDriverName']}-layers" / "layers.json"
    sizes = {layer.get("diff-digest"): layer.get("diff-size", 0) for layer in json.loads(index.read_text())}
    image = json.loads(output([tool, "inspect", "--type", "image", name]))["OCIv1"]
    steps = [step.get("created_by", "") for step in image["history"] if not step.get("empty_layer")]
    for digest, step in zip(image["rootfs"]["diff_ids"], steps, strict=True):
        yield Layer(sizes[digest], step)


def describe(name: str, found: list[Layer]) -> str:
    lines = [f"\n{name}: {megabytes(sum(layer.size for layer in found))}"]
    lines += [f"  {megabytes(layer.size):>9}  {summary(layer.step)}" for layer in found]
    return "\n".join(lines)


def summary(step: str) -> str:
    step = " ".join(step.removeprefix("/bin/sh -c ").removeprefix("#(nop) ").split())
    return step if len(step) <= 100 else f"{step[:99]}…"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
