"""scripts/run with one model that is restored from a snapshot whenever it wakes up; the snapshot is made first."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.local.supervisor import ProcessEnded, Supervisor
from scripts.loopback import HOST
from scripts.snapshot import LocalSnapshot
from wire.listener import listen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle", type=float, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    name = arguments.model.name
    folder = RunFolder(arguments.port)
    if not folder.hold():
        return 1
    with tempfile.TemporaryDirectory() as images:
        try:
            snapshot = LocalSnapshot(arguments.model, Path(images))
            flags = ["--name", name, "--host", HOST, "--quiet-seconds", "0", "--idle-seconds", str(arguments.idle)]
            listener, notices = listen(HOST, 0), folder.open_notices(0)
            model = ServedModel(name, "text", listener, notices, snapshot.command(*flags), snapshot.environment)
            web = [sys.executable, "-m", "web", "--host", HOST, "--port", str(arguments.port)]
            web += ["--models", json.dumps({name: model.url}), "--log-level", "warning"]
            Supervisor([model], web, folder, arguments.idle, lambda: print("all are up", flush=True)).run()
            return 0
        except (ProcessEnded, RuntimeError) as error:
            print(f"restored_run: {error}", flush=True)
            return 1
        finally:
            folder.release()


if __name__ == "__main__":
    sys.exit(main())
