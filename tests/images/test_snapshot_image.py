"""The image with a snapshot, as scripts/build-images --checkpoint makes it, and as kserve/overlays/restore runs it."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.cluster import build_images, snapshot_image
from scripts.cluster.commands import Failure
from scripts.project import version
from tests.images.debian import packages
from tests.images.stores import build_lock
from tests.images.test_images import USER
from tests.manifests.checks.kustomizations import render
from tests.manifests.checks.objects import environment
from tests.support.snapshots import pod as pods

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CRIU_BASE = "localhost/criu"
SUITE = "sid"
"""Of Debian, which has CRIU 4.2."""

ASKED = {"model": "text", "prompt": "写一首关于春雨的诗", "seed": 7, "max_tokens": 40}


@pytest.fixture(scope="module")
def criu_base(images: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with CRIU, of Debian's own packages."""
    with build_lock():
        if CRIU_BASE in images.buildah("images", "--format", "{{.Name}}").splitlines():
            return CRIU_BASE
        root = tmp_path_factory.mktemp("criu") / "root"
        command = ["debootstrap", "--variant=minbase", "--include=criu,patchelf", SUITE, str(root), packages()[1]]
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if made.returncode:
            pytest.skip(f"there is no CRIU 4.2 to install: {made.stdout.strip().splitlines()[-1]}")
        container = images.buildah("from", "scratch")
        images.buildah("copy", "--quiet", container, str(root), "/")
        images.buildah("commit", "--quiet", "--rm", container, CRIU_BASE)
        shutil.rmtree(root)
    return CRIU_BASE


@pytest.fixture(scope="module")
def image(
    images: Any, store: dict[str, str], criu_base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The root folder of the poet's image."""
    if reason := pods.obstacle():
        pytest.skip(reason)
    predictor = f"shangcai/predictor:{version()}"
    arguments = argparse.Namespace(checkpoint_threads=2, criu_base=criu_base)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in store.items():
            patched.setenv(name, value)
        poet = snapshot_image.Checkpoint.parse("poet --slots 16 --memory 2Gi")
        try:
            name = snapshot_image.snapshot(build_images.run, build_images.output, "buildah", predictor, poet, arguments)
        except Failure:
            container = images.buildah("from", f"{predictor}-poet-base")
            added = [part for each in snapshot_image.CAPABILITIES for part in ("--cap-add", f"CAP_{each}")]
            command = ["buildah", "run", "--user", "0:0", *added, container, "--", "/opt/criu/criu", "check"]
            checked = subprocess.run(command, capture_output=True, text=True)
            images.buildah("rm", container)
            if checked.returncode:
                pytest.skip(f"criu check fails here: {checked.stderr.strip()}")
            raise
    container = images.buildah("from", name)
    config = json.loads(images.buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == snapshot_image.ENTRYPOINT
    yield Path(images.buildah("mount", container))
    images.buildah("umount", container)
    images.buildah("rm", container)


def overlay() -> tuple[dict[str, str], dict[str, Any]]:
    """The variables and the grants of the text model in kserve/overlays/restore."""
    found = [thing for thing in render(ROOT / "kserve" / "overlays" / "restore") if thing.name == "text"]
    container = found[0].containers[0]
    return environment(container), container["securityContext"]


def test_the_image_is_restored_with_what_the_overlay_grants(image: Path, tmp_path: Path) -> None:
    variables, grants = overlay()
    capabilities = [name.lower() for name in grants["capabilities"]["add"]]
    variables |= {"PATH": "/opt/venv/bin:/usr/bin:/bin", "PREDICTOR_HOST": "127.0.0.1", "PREDICTOR_NAME": "text"}
    texts = {}
    for granted in (capabilities, []):
        privileged = grants["allowPrivilegeEscalation"]
        with pods.pod(
            tmp_path,
            snapshot_image.ENTRYPOINT,
            capabilities=granted,
            environment=variables,
            privileged=privileged,
            image=image,
            host="restored" if granted else "refused",
        ) as pod:
            status, answer = pod.ask("/openai/v1/completions", ASKED)
            assert status == 200, answer
            restored = "predictor: restored within" in pod.log
            texts[restored] = json.loads(answer)["choices"][0]["text"]
            assert pod.end() == 0
    assert set(texts) == {True, False}, "one of them is restored, the other has started as usual"
    assert texts[True] == texts[False]


def test_the_snapshot_is_the_users_alone(image: Path) -> None:
    for path in [image / "snapshot", *(image / "snapshot").iterdir()]:
        assert (path.stat().st_uid, path.stat().st_mode & 0o022) == (USER, 0), path
    assert (image / "opt" / "criu" / "criu").stat().st_uid == 0
