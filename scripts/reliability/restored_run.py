"""scripts/run with one model that is restored from a snapshot whenever it wakes up; the snapshot is made first."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.loopback import HOST
from scripts.reliability.supervised_run import supervise
from scripts.snapshot import LocalSnapshot
from wire.listener import listen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle", type=float, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    name = arguments.model.name
    flags = ["--name", name, "--host", HOST, "--quiet-seconds", "0", "--idle-seconds", str(arguments.idle)]
    with tempfile.TemporaryDirectory() as images:

        def make(folder: RunFolder) -> list[ServedModel]:
            snapshot = LocalSnapshot(arguments.model, Path(images))
            sockets = listen(HOST, 0), folder.open_notices(0)
            return [ServedModel(name, "text", *sockets, snapshot.command(*flags), snapshot.environment)]

        try:
            return supervise(arguments.port, arguments.idle, make)
        except RuntimeError as error:
            print(f"restored_run: {error}", flush=True)
            return 1


if __name__ == "__main__":
    sys.exit(main())
