"""scripts/run with stub predictors in the place of real ones; the supervisor and web are real."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from scripts.local.run_folder import RunFolder
from scripts.local.supervisor import HOST, Ended, Served, Supervisor
from wire.listener import listen

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle", type=float, required=True)
    parser.add_argument("--keep-alive", type=float, default=0.5)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--orders", type=Path, required=True, help="folder of what the stubs are told to do")
    arguments = parser.parse_args()
    folder = RunFolder(arguments.port)
    if not folder.hold():
        return 1
    served = []
    for number in range(arguments.models):
        name = f"stub-{number}"
        command = [sys.executable, str(HERE / "stub_predictor.py"), "--idle-seconds", str(arguments.idle)]
        command += ["--keep-alive-seconds", str(arguments.keep_alive), "--order", str(arguments.orders / name)]
        served.append(Served(name, "text", listen(HOST, 0), folder.open_socket(number), command))
    models = json.dumps({one.name: one.url for one in served})
    web = [sys.executable, "-m", "web", "--host", HOST, "--port", str(arguments.port), "--models", models]
    web += ["--keepalive-seconds", str(arguments.keep_alive / 4), "--log-level", "warning"]
    try:
        Supervisor(served, web, arguments.port, folder, arguments.idle, lambda: print("all are up", flush=True)).run()
        return 0
    except Ended as error:
        print(f"stub_run: {error}", flush=True)
        return 1
    finally:
        folder.release()


if __name__ == "__main__":
    sys.exit(main())
