"""What the tests build images with: a Debian from this machine's packages, and this machine's settings of pip."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path


def debian(root: Path) -> Path:
    """Install a minimal Debian with Python in a folder."""
    suite, mirror = packages()
    include = "--include=python3,python3-venv,ca-certificates"
    command = ["debootstrap", "--variant=minbase", include, suite, str(root), mirror]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root / "var" / "cache" / "apt")
    for compiled in root.glob("usr/lib/python3*/**/*.pyc"):  # python:3.11-slim has none of its library, either
        compiled.unlink()
    return root


def packages() -> tuple[str, str]:
    """The suite and the mirror that this machine has its own packages from."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Component: main"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    suites = [line.split() for line in targets.splitlines()]
    return next((suite, mirror) for suite, mirror in suites if "-" not in suite)  # neither -updates nor -security


def pip_settings() -> tuple[str, list[Path]]:
    """This machine's settings of pip as a pip.conf, and the files and folders that they speak of."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    # The environment's come first, and count before the files'.
    found: dict[str, str] = {}
    for key, value in re.findall(r"^[^.]+\.(\S+)='(.*)'$", listed, re.MULTILINE):
        found.setdefault(key, value)
    found.pop("constraint", None)  # ours are the locked ones
    folders = []
    for word in " ".join(found.values()).replace("\\n", " ").split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            # The pages of an index link to files beside its folder.
            folders.append(path.parent if word.startswith("file://") else path)
    lines = [f"{key} = {value.replace(chr(92) + 'n', ' ')}" for key, value in found.items()]
    return "\n".join(["[global]", *lines]), folders
