"""Process 1 of a container with a snapshot: restores the predictor, or starts it as usual.

A restore has DEADLINE_SECONDS in all. criu waits for ever where a capability is missing, so what has not answered by
then is killed. While criu reads the images, a thread compares their checksums, and only then is the restored process
told to go on. Imports little, because each start waits for it.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from predictor.snapshot import key as keys
from predictor.snapshot import processes
from predictor.snapshot.meeting_point import FIFO, LINE_BYTES, OK, SOCKET
from predictor.system_calls import adopt_orphans, give_up_privileges
from predictor.systemd import LISTEN_FD

DEADLINE_SECONDS = 2.0
"""Longest from the launcher's start to the answer of the restored process; SNAPSHOT_SECONDS says otherwise."""

CRASH_SECONDS = 60.0
"""A crash sooner after the restore is held against it."""

IMAGES = "/snapshot"
"""Where the images are; SNAPSHOT_IMAGES says otherwise."""

CRIU = "/opt/criu/criu"
"""The program; SNAPSHOT_CRIU says otherwise."""


class Failure(Exception):
    """The restore has failed; why, in one line."""


def run(arguments: Sequence[str]) -> int:
    """Serve with these arguments of `python -m predictor`. The exit status; does not return after a usual start.

    What was restored and soon crashes may do so at each restore, so that the container goes on with a usual start.
    """
    begun = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        if os.getpid() != 1:  # which is their parent anyway
            adopt_orphans()
        pid = restore(arguments, begun)
    except Exception as reason:  # a restore is an attempt, whatever goes wrong in it
        processes.kill_all()
        processes.hold_signals(False)
        expected = isinstance(reason, Failure | keys.Mismatch)
        _start_as_usual(arguments, str(reason) if expected else f"{type(reason).__name__}: {reason}")
    restored = time.monotonic()
    print(f"predictor: restored within {restored - begun:.3f} s", file=sys.stderr, flush=True)
    give_up_privileges()
    end = processes.stand_for(pid)
    if end.crash and (served := time.monotonic() - restored) < CRASH_SECONDS:
        processes.kill_all()
        processes.hold_signals(False)
        _start_as_usual(arguments, f"what was restored ended with {end.crash} after {served:.1f} s")
    return end.status


def restore(arguments: Sequence[str], begun: float) -> int:
    """The process of the restored predictor, which has answered that it serves. Raises an exception, and leaves
    processes then. `begun` is on time.monotonic."""
    try:
        deadline = begun + float(os.environ.get("SNAPSHOT_SECONDS") or DEADLINE_SECONDS)
    except ValueError:
        raise Failure("SNAPSHOT_SECONDS is no number") from None
    images = os.environ.get("SNAPSHOT_IMAGES") or IMAGES
    key = keys.read(images)
    keys.check_machine(key)
    folder = str(key["meeting_point"])
    _clear(folder)
    os.mkdir(folder, 0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            os.mkfifo(os.path.join(folder, FIFO), 0o600)
            listener.bind(os.path.join(folder, SOCKET))
            listener.listen(1)
            checking = _Checking(images, key)
            checking.start()
            _run_criu(images, folder, deadline)
            checking.join(max(0.0, deadline - time.monotonic()))
            checking.raise_result()
            fifo = os.open(os.path.join(folder, FIFO), os.O_RDWR | os.O_NONBLOCK)
            try:
                _tell(fifo, arguments, os.path.join(folder, SOCKET), deadline)
                return _meet(listener, deadline)
            finally:
                os.close(fifo)
        finally:
            _clear(folder)


class _Checking(threading.Thread):
    def __init__(self, images: str, key: keys.Json) -> None:
        super().__init__(daemon=True)
        self._images = images
        self._key = key
        self._result: Exception | None = Failure("its images were not read in time")

    def run(self) -> None:
        try:
            keys.check_images(self._images, self._key)
        except Exception as error:
            self._result = error
        else:
            self._result = None

    def raise_result(self) -> None:
        if self._result is not None:
            raise self._result


def _run_criu(images: str, folder: str, deadline: float) -> None:
    program = os.environ.get("SNAPSHOT_CRIU") or CRIU
    log = os.path.join(folder, "criu.log")
    command = [program, "restore", "--images-dir", images, "--work-dir", folder, "--log-file", log, "-v1"]
    # A sibling: our child, and not criu's, so that its end and its status come to us.
    command += ["--restore-detached", "--restore-sibling", "--manage-cgroups=ignore"]
    if os.geteuid():
        command.append("--unprivileged")
    try:
        pid = os.posix_spawn(program, command, {"PATH": os.environ.get("PATH", os.defpath)})
    except OSError as error:  # EPERM: the container lacks a capability that the file has
        raise Failure(f"{program} cannot be executed: {error.strerror}") from None
    status = processes.wait_for_exit(pid, deadline)
    if status is None:
        raise Failure("criu was not done in time; does the container lack a capability?")
    if status:
        raise Failure(f"criu ended with {status}: {_last_error(log)}")


def _last_error(log: str) -> str:
    """Why criu has failed: its last error but the one that says that it has. It also says, and goes on, that it cannot
    raise its own limits where a capability is missing."""
    with suppress(OSError), open(log, errors="replace") as file:
        lines = [line.strip() for line in file if "Error" in line]
        told = [line for line in lines if "rlimit:" not in line and "FAILED" not in line] or lines
        if told:
            return told[-1][:300]
    return "its log says nothing"


def _tell(fifo: int, arguments: Sequence[str], socket_path: str, deadline: float) -> None:
    told = {"arguments": list(arguments), "environment": dict(os.environ), "socket": socket_path}
    line = json.dumps(told).encode() + b"\n"
    if len(line) > LINE_BYTES:
        raise Failure("arguments and environment are too long")
    while line:
        if not processes.writable(fifo, deadline):
            raise Failure("the restored process does not listen")
        with suppress(BlockingIOError):
            line = line[os.write(fifo, line) :]


def _meet(listener: socket.socket, deadline: float) -> int:
    if not processes.readable(listener.fileno(), deadline):
        raise Failure("the restored process does not answer")
    connection, _ = listener.accept()
    with connection:
        peer = array.array("i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        processes.hold_signals(True)  # until it is known whose they are
        files = [0, 1, 2]
        if os.environ.get("LISTEN_PID") == str(os.getpid()):  # ours, which the restored process has not
            files.append(LISTEN_FD)
        socket.send_fds(connection, [b"\n"], files)
        answer = b""
        while not answer.endswith(b"\n"):
            if not processes.readable(connection.fileno(), deadline):
                raise Failure("the restored process does not answer")
            part = connection.recv(LINE_BYTES)
            if not part:
                raise Failure("the restored process has ended")
            answer += part
    said = answer.decode(errors="replace").strip()
    if said != OK:
        raise Failure(said)
    return peer[0]


def _clear(folder: str) -> None:
    """Remove the folder of an earlier restore. Raises Failure for one that is not ours: its name is known to all."""
    with suppress(FileNotFoundError):
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise Failure(f"{folder} is not a folder of this user")
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def _end(*_: object) -> None:
    """A signal before anything serves."""
    processes.kill_all()
    os._exit(0)


def _start_as_usual(arguments: Sequence[str], reason: str) -> None:
    print(f"predictor: not restored, but started as usual: {reason}", file=sys.stderr, flush=True)
    give_up_privileges()
    os.execv(sys.executable, [sys.executable, "-m", "predictor", *arguments])  # noqa: S606  a shell is what we avoid
