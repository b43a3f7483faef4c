"""A snapshot of a model on this machine, without an image: as root, with the criu that SNAPSHOT_CRIU names or the PATH
has. It has the process id of the dump, so that one process at a time is restored from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.project import ROOT

DUMP_SECONDS = 300.0
RESTORE_SECONDS = "30"
"""Other programs may keep the machine busy, and what is restored is waited for."""


class LocalSnapshot:
    """Of `model`, dumped into a new folder below `folder`. Raises RuntimeError where that fails."""

    def __init__(self, model: Path, folder: Path) -> None:
        images = folder / "snapshot"
        self._flags = ["--model", str(model), "--memory", "4Gi", "--no-pack-weights", "--cache-folder", ""]
        self.environment = {
            "SNAPSHOT_USER": "0",
            "SNAPSHOT_IMAGES": str(images),
            "SNAPSHOT_SECONDS": RESTORE_SECONDS,
            "SNAPSHOT_CRIU": criu() or "",
        }
        """Of the launcher, beside the usual one."""

        command = [sys.executable, "-m", "predictor", "dump", str(images), *self._flags]
        dumped = subprocess.run(
            command, cwd=ROOT, env=os.environ | self.environment, timeout=DUMP_SECONDS, capture_output=True, text=True
        )
        if dumped.returncode:
            raise RuntimeError(f"the dump ended with {dumped.returncode}: {dumped.stderr[-500:]}")

    def command(self, *flags: str) -> list[str]:
        """The launcher, with these flags of the predictor beside those of the dump; in the folder ROOT."""
        return [sys.executable, "-S", "-m", "predictor.snapshot", *self._flags, *flags]


def criu() -> str | None:
    """The program, where a snapshot can be made and restored here."""
    return (os.environ.get("SNAPSHOT_CRIU") or shutil.which("criu")) if os.geteuid() == 0 else None
