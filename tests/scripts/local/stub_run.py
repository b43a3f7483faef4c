"""scripts/run with stub predictors in the place of real ones; the supervisor and web are real."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.local.supervisor import ProcessEnded, Supervisor
from scripts.loopback import HOST
from wire.listener import listen

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle", type=float, required=True)
    parser.add_argument("--keep-alive", type=float, default=0.5)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument(
        "--behaviours", type=Path, required=True, help="folder of a file for each stub, see stub_predictor"
    )
    arguments = parser.parse_args()
    folder = RunFolder(arguments.port)
    if not folder.hold():
        return 1
    models = []
    for number in range(arguments.models):
        name = f"stub-{number}"
        command = [sys.executable, str(HERE / "stub_predictor.py"), "--idle-seconds", str(arguments.idle)]
        command += ["--keep-alive-seconds", str(arguments.keep_alive), "--behaviour", str(arguments.behaviours / name)]
        models.append(ServedModel(name, "text", listen(HOST, 0), folder.open_notices(number), command))
    urls = json.dumps({model.name: model.url for model in models})
    web = [sys.executable, "-m", "web", "--host", HOST, "--port", str(arguments.port), "--models", urls]
    web += ["--keepalive-seconds", str(arguments.keep_alive / 4), "--log-level", "warning"]
    try:
        Supervisor(models, web, folder, arguments.idle, lambda: print("all are up", flush=True)).run()
        return 0
    except ProcessEnded as error:
        print(f"stub_run: {error}", flush=True)
        return 1
    finally:
        folder.release()


if __name__ == "__main__":
    sys.exit(main())
