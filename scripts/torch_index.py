"""Where torch comes from: CPU builds have an index of their own, and are gigabytes smaller than those with CUDA.

scripts/environment.sh runs this in the environment that it installs into; scripts/build-images has the index from here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from scripts.project import ROOT

CPU_BUILDS = os.environ.get("SHANGCAI_TORCH_INDEX") or "https://download.pytorch.org/whl/cpu"
"""The package index of torch's CPU builds."""

SECONDS = 3.0
"""Longest wait for that index: some networks have no way to it."""

DRIVER = ("proc/driver/nvidia/version", "dev/nvidia0", "dev/nvidiactl", "usr/lib/wsl/lib/nvidia-smi")
"""One of them is there where Linux has an NVIDIA driver; the last is that of Windows, seen from Linux on it."""

Choice = Literal["auto", "cpu", "cuda"]


def has_nvidia_driver(root: Path = Path("/")) -> bool:
    return any((root / path).exists() for path in DRIVER) or shutil.which("nvidia-smi") is not None


def reachable_index() -> str | None:
    """The index of CPU builds; None, with a line on stderr, if it does not answer."""
    if _answers(f"{CPU_BUILDS}/torch/"):
        return CPU_BUILDS
    print(
        f"{CPU_BUILDS} cannot be reached: torch comes from pip's own index, there perhaps with gigabytes of CUDA",
        file=sys.stderr,
    )
    return None


def pip_arguments(choice: Choice) -> list[str]:
    """What `pip install torch` needs, before anything else is installed; empty if it needs no such step.

    `auto` keeps a torch that is there, and takes a CPU build where there is no driver for CUDA. A line on stderr says
    so. On other systems than Linux there are CPU builds only.
    """
    if sys.platform != "linux":
        return []
    there = _installed()
    fits = there is not None and there.partition("+")[0] == _pinned()
    if choice == "cuda":
        return ["--force-reinstall"] if there is not None and there.endswith("+cpu") else []
    if fits and (choice == "auto" or (there or "").endswith("+cpu")):
        return []
    if choice == "auto" and has_nvidia_driver():
        return []
    index = reachable_index()
    if index is None:
        return []
    if choice == "auto":
        print(
            f"torch comes from {index}, without CUDA: there is no NVIDIA driver here (SHANGCAI_TORCH=cuda takes it)",
            file=sys.stderr,
        )
    return ["--index-url", index, *(["--force-reinstall"] if fits else [])]


def _answers(url: str) -> bool:
    """Whether there is a page, within SECONDS: in a thread, because no timeout ends the resolver's own."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=SECONDS):  # noqa: S310 (it is https, or the user's own)
                answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return answers == [True]


def _installed() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def _pinned() -> str | None:
    """The version in constraints.txt."""
    found = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return found[1] if found else None


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while the index is waited for
    match sys.argv[1:]:
        case ["auto" | "cpu" | "cuda" as choice]:
            print(*pip_arguments(choice))
        case _:
            sys.exit("torch is chosen by auto, cpu or cuda")
    sys.stdout.flush()
    os._exit(0)  # the thread may still wait for an address


if __name__ == "__main__":
    main()
