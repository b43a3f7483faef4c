"""A predictor as a fork of the template: a process like a fresh one, whose parent is the supervisor."""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from predictor.loading.systemd import LISTEN_FD
from predictor.template.parent_death import end_with

ADOPTION_SECONDS = 5.0
"""Longest that a process waits for the supervisor to become its parent."""

_PID = struct.Struct("i")


class ForkError(Exception):
    """No process was forked, for the reason in its text."""


@dataclass(frozen=True)
class Order:
    """What is to be forked: a predictor of the model `name`, as a process of the `supervisor`. It is told `arguments`,
    has `variables` beside its environment, and listens on the descriptor `listener`, as systemd passes one."""

    supervisor: int
    name: str
    arguments: Sequence[str]
    variables: Mapping[str, str]
    listener: int


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
        _wait_for_adoption(order.supervisor)
        end_with(order.supervisor)
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


def _wait_for_adoption(supervisor: int) -> None:
    """Until the supervisor is the parent; the process ends if it has gone."""
    deadline = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != supervisor:
        if time.monotonic() >= deadline:
            os._exit(1)
        time.sleep(0.0005)
