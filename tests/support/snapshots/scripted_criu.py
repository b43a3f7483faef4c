"""A program that is called as criu is, and does what a test wants: it restores nothing, but starts a process that waits
at the gate."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from predictor.snapshot import key
from predictor.systemd import LISTEN_FD
from tests.support.processes import ROOT

RESTORED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from predictor.snapshot.gate import Gate
gate = Gate(Path({meeting_point!r}))
gate.wait()
Path({told!r}).touch()
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
{answer}
print(f"serving with {{sys.argv[1:]}} and {{os.environ['COLOUR']}}", flush=True)
signal.pause()
"""
"""A restored process; it serves until SIGTERM, and ends with 7."""


@dataclass
class ScriptedCriu:
    """A snapshot in a folder, and the program that restores it."""

    folder: Path
    launched: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def told(self) -> Path:
        """Is there once a restored process went on."""
        return self.folder / "told"

    @property
    def started(self) -> list[int]:
        """Ids of the processes that were started."""
        found = self.folder / "started"
        return [int(line) for line in found.read_text().split()] if found.exists() else []

    def write(self, does: str) -> None:
        """Have the program do this: Python, with `restore()` to start the process that waits, and `log` for a line."""
        self.images.mkdir(exist_ok=True)
        (self.images / "pages-1.img").write_bytes(b"memory" * 1000)
        program = self.folder / "criu"
        program.write_text(
            f"#!{sys.executable} -S\n"
            "import os, signal, subprocess, sys, time\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            f"def note(pid): open({str(self.folder / 'started')!r}, 'a').write(f'{{pid}}\\n')\n"
            "def log(line): open(sys.argv[sys.argv.index('--log-file') + 1], 'w').write(line + '\\n')\n"
            f"def restore(): note(subprocess.Popen([{sys.executable!r}, '-S', {str(self.folder / 'restored.py')!r}],"
            " start_new_session=True).pid)\n"
            f"note(os.getpid())\n{does}\n"
        )
        program.chmod(0o755)
        self.answer("gate.answer()")
        self.seal()

    def answer(self, does: str) -> None:
        """Have the restored process do this once it was told to go on."""
        script = RESTORED.format(
            root=str(ROOT), meeting_point=str(self.folder / "meeting"), told=str(self.told), answer=does
        )
        (self.folder / "restored.py").write_text("from pathlib import Path\n" + script)

    def seal(self, **changed: object) -> None:
        """Write the key of the images as they are; `changed` are other values of it."""
        (self.images / key.FILE).unlink(missing_ok=True)
        described = key.describe(str(self.images), str(self.folder / "meeting"), [sys.executable])
        key.write(str(self.images), {**described, **changed})

    def launch(
        self, *arguments: str, seconds: float = 20.0, listener: socket.socket | None = None
    ) -> subprocess.Popen[str]:
        """The launcher, with these arguments for the predictor; a `listener` is passed on as systemd does it."""
        environment = {
            **os.environ,
            "SNAPSHOT_IMAGES": str(self.images),
            "SNAPSHOT_CRIU": str(self.folder / "criu"),
            "SNAPSHOT_SECONDS": str(seconds),
            "COLOUR": "green",
        }
        command = [sys.executable, "-S", "-m", "predictor.snapshot", *arguments]
        if listener:
            command = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *command]
        launched = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            pass_fds=[LISTEN_FD] if listener else [],
            preexec_fn=lambda: listener and os.dup2(listener.fileno(), LISTEN_FD),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.launched.append(launched)
        return launched

    def end(self) -> None:
        """Kill what is left of all launchers, and of what they have restored."""
        for launched in self.launched:
            launched.kill()
        for pid in self.started:  # they have its pipes
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for launched in self.launched:
            launched.communicate()
