"""A predictor as a fork of the template: a process like a fresh one, whose parent is the supervisor."""

from __future__ import annotations

import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from predictor.system_calls import end_with
from predictor.systemd import LISTEN_FD

_PID = struct.Struct("i")


class ForkError(Exception):
    """No process was forked, for the reason in its text."""


@dataclass(frozen=True)
class Order:
    """What is to be forked: a predictor of the model `name`, as a process of the `supervisor`. It is told `arguments`,
    has `variables` beside its environment, and listens on the descriptor `listener`, as systemd passes one. It begins
    once a byte comes from `consent`, a pipe, and ends at its end: nobody knows it then."""

    supervisor: int
    name: str
    arguments: Sequence[str]
    variables: Mapping[str, str]
    listener: int
    consent: int


def fork_predictor(order: Order, run: Callable[[], NoReturn]) -> int:
    """Fork a process that calls `run`; its pid. Raises ForkError.

    The process between ends at once, so that its child becomes one of the supervisor, which has asked to adopt orphans.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise ForkError(f"{threads} threads run, and a fork would have one of them")
    read_end, write_end = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                os.close(write_end)
                _become_predictor(order, run)
            os.write(write_end, _PID.pack(pid))
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(between, 0)
    if len(answer) != _PID.size:
        raise ForkError("the system has forked no process")
    return int(_PID.unpack(answer)[0])


def _become_predictor(order: Order, run: Callable[[], NoReturn]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        if not os.read(order.consent, 1):
            os._exit(0)
        os.close(order.consent)
        end_with(order.supervisor)  # which is the parent by now
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        Path("/proc/self/comm").write_text(order.name)
        if order.listener != LISTEN_FD:
            os.dup2(order.listener, LISTEN_FD)  # in the place of the template's own socket
            os.close(order.listener)
        os.environ.update(order.variables)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        sys.argv = ["predictor", *order.arguments]
        run()
    except SystemExit as end:  # as the interpreter would have it
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
