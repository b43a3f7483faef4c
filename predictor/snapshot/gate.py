"""The gate: where a loaded predictor waits until it has been dumped and restored.

What comes from outside is told anew there: arguments, environment, standard files. The seeds of random numbers are
drawn anew. See predictor.snapshot.meeting_point for how.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictor.snapshot.meeting_point import FIFO, LINE_BYTES, OK, READY
from predictor.system_calls import allow_tracing, end_with, return_free_memory
from predictor.systemd import adopted_listener

log = logging.getLogger(__name__)


class Gate:
    """Of the folder that the setting `wait_for_restore` names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._launcher: socket.socket | None = None
        self.listener: socket.socket | None = None
        """That the launcher has passed on."""

    def wait(self) -> Restored:
        """Give memory back, say that this process may be dumped, and wait until it has been restored. It must have no
        connection, no timer and no thread that waits for a time. Raises OSError where the folder cannot be used, and
        ValueError for a line that is none of the launcher's."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fifo = self._folder / FIFO
        if not fifo.exists():
            os.mkfifo(fifo, 0o600)
        _release_memory()
        _quiesce_device()
        _close_standard_files()
        allow_tracing()  # criu is none of its parents
        (self._folder / READY).touch()
        told = _read_line(fifo)
        _resume_device()
        restored = Restored.of(told)
        if restored.socket:
            self._launcher, self.listener = _connect(restored.socket)
            end_with(os.getppid())  # the launcher's, which is its parent: outside of a container nobody else ends it
        restored.apply()
        draw_seeds()
        return restored

    def answer(self, line: str = OK) -> None:
        """Tell the launcher that this process serves from now on, or in one line why it cannot."""
        if self._launcher is None:
            return
        with self._launcher as launcher:
            launcher.sendall(" ".join(line.split()).encode()[:LINE_BYTES] + b"\n")
        self._launcher = None


@dataclass(frozen=True)
class Restored:
    """What a restored process is told; None is as it was."""

    arguments: list[str] | None
    environment: dict[str, str] | None
    socket: str | None

    @classmethod
    def of(cls, line: bytes) -> Restored:
        """Raises ValueError."""
        told: Any = json.loads(line or b"{}")
        return cls(told.get("arguments"), told.get("environment"), told.get("socket"))

    def apply(self) -> None:
        """Have this process be started with these."""
        if self.environment is not None:
            os.environ.clear()
            os.environ.update(self.environment)
            time.tzset()
        if "platform" in sys.modules:  # it remembers the host name, and can forget it from Python 3.14 on only
            sys.modules["platform"]._uname_cache = None  # type: ignore[attr-defined]
        if self.arguments is not None:
            sys.argv[1:] = self.arguments


def draw_seeds() -> None:
    """Draw new seeds where a library has one of its own: every process that is restored has those of the dump.

    `secrets` and `uuid` ask the system each time.
    """
    random.seed()
    if "numpy" in sys.modules:
        import numpy

        numpy.random.seed()
    if "torch" in sys.modules:
        import torch

        torch.seed()
    if "ssl" in sys.modules:
        import ssl

        ssl.RAND_add(os.urandom(48), 48.0)  # its generators draw anew when new entropy has come


def _read_line(fifo: Path) -> bytes:
    with fifo.open("rb", buffering=0) as reader:
        line = bytearray()
        while not line.endswith(b"\n") and len(line) < LINE_BYTES:
            part = reader.read(LINE_BYTES)
            if not part:
                break
            line += part
    return bytes(line)


def _connect(path: str) -> tuple[socket.socket, socket.socket | None]:
    """The connection to the launcher, with its standard files in the place of ours; and a listening socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    _, files, _, _ = socket.recv_fds(connection, 1, 4)
    for number, received in enumerate(files[:3]):
        os.dup2(received, number, inheritable=True)
        os.close(received)
    return connection, adopted_listener(files[3]) if files[3:] else None


def _release_memory() -> None:
    """Give back what is free, so that it is not dumped."""
    gc.collect()
    gc.freeze()
    return_free_memory()


def _close_standard_files() -> None:
    """They lead out of this process, and a pipe of the dump would not be there any more."""
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number, inheritable=True)
    os.close(nothing)


# With a GPU: NVIDIA's cuda-checkpoint moves the device's memory to the host, and back. It has not been tried yet.


def _quiesce_device() -> None:
    _toggle_device()


def _resume_device() -> None:
    _toggle_device()


def _toggle_device() -> None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    command = shutil.which("cuda-checkpoint")
    if command is None:
        raise OSError("a process that uses a GPU is dumped with cuda-checkpoint, which is not on the PATH")
    torch.cuda.synchronize()
    subprocess.run([command, "--toggle", "--pid", str(os.getpid())], check=True)  # noqa: S603
