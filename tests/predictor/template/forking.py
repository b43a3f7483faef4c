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

from predictor.system_calls import adopt_orphans
from predictor.template.fork import ForkError, Order, fork_predictor


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
    print(json.dumps(found) + "\n", end="", flush=True)  # in one piece: both processes write to one pipe
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
    consent, ours = os.pipe()
    os.register_at_fork(after_in_child=lambda: os.close(ours))  # it is the supervisor's alone
    with socket.create_server(("127.0.0.1", 0)) as listener:
        order = Order(os.getpid(), "noodles", sys.argv[1:], {"ORDERED": "yes"}, listener.fileno(), consent)
        try:
            pid = fork_predictor(order, describe)
        except ForkError as error:
            print(f"refused: {error}", flush=True)
            os._exit(3)
        print(json.dumps({"pid": pid, "port": listener.getsockname()[1]}) + "\n", end="", flush=True)
    if sys.argv[1] != "dissent":
        os.write(ours, b"\n")
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
