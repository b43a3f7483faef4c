"""A template without imports, which is its own supervisor: prints what a fork of it is, and ends as it is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn

from predictor.template.fork import ForkError, Order, fork_predictor
from predictor.template.parent_death import adopt_orphans


def describe() -> NoReturn:
    with socket.socket(fileno=3) as listener:
        found = {
            "argv": sys.argv,
            "variable": os.environ["ORDERED"],
            "listen_pid": int(os.environ["LISTEN_PID"]) == os.getpid(),
            "port": listener.getsockname()[1],
            "parent": os.getppid(),
            "leads_session": os.getsid(0) == os.getpid(),
            "name": Path("/proc/self/comm").read_text().strip(),
            "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        }
    print(json.dumps(found), flush=True)
    match sys.argv[1]:
        case "exit":
            sys.exit(int(sys.argv[2]))
        case "raise":
            raise RuntimeError("as ordered")
        case "kill":
            os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
    os._exit(0)


def main() -> None:
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: None)
    if sys.argv[1] == "threads":
        threading.Thread(target=signal.pause, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        variables = {"ORDERED": "yes"}
        order = Order(os.getpid(), "noodles", sys.argv[1:], variables, listener.fileno(), int(os.environ["CONSENT"]))
        try:
            pid = fork_predictor(order, describe)
        except ForkError as error:
            print(f"refused: {error}", flush=True)
            os._exit(3)
        print(json.dumps({"pid": pid, "port": listener.getsockname()[1]}), flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
