"""Where buildah keeps what the tests build.

The store stays in data/ between two runs, so that unchanged layers are not built again. A change of what most of it is
made of (the Dockerfiles, the locked versions, the packages of Debian) begins a new one and removes the old one, as on a
machine that has none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock

from tests.images.debian import packages

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"
SOURCES = ("web/Dockerfile", "predictor/Dockerfile", "constraints.txt")


@contextmanager
def opened_store() -> Iterator[dict[str, str]]:
    """The environment for buildah: overlay in data/ where that works, else vfs, which copies each layer, elsewhere."""
    kept = DATA / f"images-{_fingerprint()}"
    with build_lock():
        for old in set(DATA.glob("images-*/")) - {kept}:
            _remove(old)
        environment = _environment(kept, "overlay")
        if _works(environment):
            temporary = None
        else:
            _remove(kept)
            temporary = Path(tempfile.mkdtemp(prefix="images-"))
            environment = _environment(temporary, "vfs")
            assert _works(environment)
    yield environment
    if temporary:
        _remove(temporary)


def build_lock() -> BaseFileLock:
    """Held by whoever builds: two workers of a test run share the store."""
    DATA.mkdir(exist_ok=True)
    return FileLock(DATA / "images.lock")


def _fingerprint() -> str:
    parts = [" ".join(packages()).encode(), *((ROOT / name).read_bytes() for name in SOURCES)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _environment(folder: Path, driver: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    settings = folder / "storage.conf"
    settings.write_text(f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n')
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "CONTAINERS_STORAGE_CONF": str(settings)}


def _works(environment: dict[str, str]) -> bool:
    made = subprocess.run(["buildah", "from", "scratch"], env=environment, capture_output=True, text=True)
    if made.returncode == 0:
        subprocess.run(["buildah", "rm", made.stdout.strip()], env=environment, check=True, capture_output=True)
    return made.returncode == 0


def _remove(folder: Path) -> None:
    # The overlay driver mounts its folder on itself, and the containers of a killed run in it.
    subprocess.run(["umount", "--recursive", str(folder / "overlay" / "overlay")], capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)
