"""scripts/run with stub predictors in the place of real ones; the supervisor and web are real."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts.local.run_folder import RunFolder
from scripts.local.served_model import ServedModel
from scripts.loopback import HOST
from scripts.reliability.supervised_run import supervise
from wire.listener import listen

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle", type=float, required=True)
    parser.add_argument("--keep-alive", type=float, default=0.5)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--asleep", type=int, default=0, help="how many of them begin asleep, the last ones")
    parser.add_argument(
        "--behaviours", type=Path, required=True, help="folder of a file for each stub, see stub_predictor"
    )
    arguments = parser.parse_args()

    def make(folder: RunFolder) -> list[ServedModel]:
        models = []
        for number in range(arguments.models):
            name = f"stub-{number}"
            command = [sys.executable, str(HERE / "stub_predictor.py"), "--idle-seconds", str(arguments.idle)]
            command += ["--keep-alive-seconds", str(arguments.keep_alive)]
            command += ["--behaviour", str(arguments.behaviours / name)]
            asleep = number >= arguments.models - arguments.asleep
            sockets = listen(HOST, 0), folder.open_notices(number)
            models.append(ServedModel(name, "text", *sockets, command, begins_asleep=asleep))
        return models

    web_flags = ["--keepalive-seconds", str(arguments.keep_alive / 4)]
    return supervise(arguments.port, arguments.idle, make, web_flags)


if __name__ == "__main__":
    sys.exit(main())
