"""What a scripts/run says of itself to others on this machine, in a folder for each port.

`state.json` is replaced whole whenever anything in it changes. Times are seconds since 1970:

    {
      "pid": 4711, "port": 8080,
      "idle_seconds": 300,               models fall asleep after so long; 0: never
      "models": {
        "poet": {
          "kind": "text", "url": "http://127.0.0.1:40001",
          "state": "waking",             asleep, waking, ready or failed
          "since": 1796031907.412,       when the state began
          "phase": "importing torch",    of waking, or null
          "why": null,                   what the latest start or predictor came to, where that was no good end
          "retry_at": null,              when a connection may start another one, where that has not come yet
          "wake_seconds": [4.81, 4.77]   what the latest wake-ups took, the newest last
        }
      }
    }

`failed`: it is not started before `retry_at`, and until then every request is answered 503. A predictor that came to a
bad end may be `asleep`, too: then a connection waits for the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


class RunFolder:
    """The folder of the scripts/run on one port."""

    def __init__(self, port: int) -> None:
        self._home = Path(tempfile.gettempdir()) / f"shangcai-{os.getuid()}"
        self._folder = self._home / str(port)
        self._lock: int | None = None
        self._sockets: list[Path] = []

    @property
    def state_file(self) -> Path:
        return self._folder / "state.json"

    def hold(self) -> bool:
        """Make it ours, unless another process has it; an OSError where that cannot be done at all."""
        self._home.mkdir(mode=0o700, exist_ok=True)
        status = self._home.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise OSError(f"{self._home} can be written to by others; remove it")
        self._folder.mkdir(exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def open_socket(self, number: int) -> socket.socket:
        """One that takes datagrams."""
        path = self._socket(number)
        path.unlink(missing_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(str(path))
        receiver.setblocking(False)
        self._sockets.append(path)
        return receiver

    def write(self, state: dict[str, Any]) -> bool:
        """False where that cannot be done: a disk that is full stops nobody from being served."""
        new = self.state_file.with_suffix(".new")
        try:
            new.write_text(json.dumps(state, ensure_ascii=False))
            new.replace(self.state_file)
        except OSError:
            return False
        return True

    def read(self) -> dict[str, Any] | None:
        """What the scripts/run on this port has written, if there is one that still runs."""
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(str(self._socket(0)))  # refused where the one who took datagrams there has gone
            state: dict[str, Any] = json.loads(self.state_file.read_text())
            return state
        return None

    def release(self) -> None:
        """Nobody runs here any more."""
        if self._lock is None:
            return
        for path in [self.state_file, *self._sockets]:
            path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def _socket(self, number: int) -> Path:
        return self._folder / f"notices-{number}"
