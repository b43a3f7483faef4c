"""CRIU as an image has it, and a snapshot of the poet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.snapshots import pod as pods
from tests.support.snapshots.pod import Pod
from tests.support.snapshots.poet import BUILD_HOST, MODEL, SECRET, Snapshot, text

LEAST = (4, 2)

CHECKPOINT_RESTORE = bytes.fromhex("0100000200000000000000000001000000000000")
"""That capability of a file, permitted and effective, as Linux writes it (version 2 of vfs_cap_data)."""


@pytest.fixture(scope="session")
def criu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of CRIU with the capability that an image's has."""
    program = os.environ.get("SNAPSHOT_CRIU") or shutil.which("criu")
    if reason := pods.obstacle():
        pytest.skip(reason)
    if program is None:
        pytest.skip("needs criu on the PATH, or SNAPSHOT_CRIU to name it")
    said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"Version: (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < LEAST:
        pytest.skip(f"needs CRIU 4.2, and {program} says {said.strip()!r}")
    checked = subprocess.run([program, "check"], capture_output=True, text=True)
    if checked.returncode:
        pytest.skip(f"criu check fails here: {checked.stderr.strip()}")
    copy = tmp_path_factory.mktemp("criu") / "criu"
    shutil.copy(program, copy)
    copy.chmod(0o755)
    try:
        os.setxattr(copy, "security.capability", CHECKPOINT_RESTORE)
    except OSError as error:
        pytest.skip(f"files cannot have capabilities here: {error}")
    return copy


@pytest.fixture(scope="session")
def snapshot(criu: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Dumped as when an image is built: with a secret in the environment, and another host name."""
    folder = tmp_path_factory.mktemp("snapshot")
    _open(folder)
    images = folder / "images"
    command = [sys.executable, "-m", "predictor", "dump", str(images), *MODEL, "--token", SECRET]
    environment = {"SNAPSHOT_CRIU": str(folder / "criu"), "PREDICTOR_STORE_URL": f"redis://:{SECRET}@redis:6379/0"}
    shutil.copy(criu, folder / "criu")
    os.setxattr(folder / "criu", "security.capability", CHECKPOINT_RESTORE)
    with pods.pod(folder, command, environment=environment, host=BUILD_HOST, user=None) as building:
        status = building.outer.wait(300)
        assert status == 0, building.log
        return Snapshot(images, folder / "criu", building.log)


Restore = Callable[..., AbstractContextManager[Pod]]


@pytest.fixture
def restore(snapshot: Snapshot) -> Restore:
    """Start the launcher as the overlay has it; keyword arguments change that."""

    def start(*arguments: str, **changed: object) -> AbstractContextManager[Pod]:
        environment = {**snapshot.environment, **changed.pop("environment", {})}  # type: ignore[dict-item]
        settings = {"capabilities": ["checkpoint_restore"], "privileged": True, **changed}
        command = [sys.executable, "-S", "-m", "predictor.snapshot", *(arguments or MODEL)]
        return pods.pod(snapshot.images.parent, command, environment=environment, **settings)  # type: ignore[arg-type]

    return start


@pytest.fixture
def spared(snapshot: Snapshot) -> Iterator[Path]:
    """The images, which are put back after a test that has damaged them."""
    kept = snapshot.images.with_name("kept")
    shutil.copytree(snapshot.images, kept)
    yield snapshot.images
    for path in snapshot.images.iterdir():
        path.unlink()
    for path in kept.iterdir():
        shutil.copy2(path, snapshot.images)
        os.chown(snapshot.images / path.name, pods.USER, pods.USER)
    shutil.rmtree(kept)


def _open(folder: Path) -> None:
    """Let other users reach a folder of pytest's."""
    for part in (folder, folder.parent, folder.parent.parent):
        part.chmod(part.stat().st_mode | 0o755)


@pytest.fixture(scope="session")
def expected(snapshot: Snapshot) -> str:
    """What a predictor writes that was started as usual, in such a pod."""
    with pods.pod(snapshot.images.parent, [sys.executable, "-m", "predictor", *MODEL], host="usual") as usual:
        return text(usual)
