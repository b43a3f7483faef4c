"""A PATH of fake programs, which record their calls and answer as a test has set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds after which a script that should have ended is a failure."""

FAKE = """#!{python} -IS
import json, sys, time
from pathlib import Path

folder = Path({folder!r})
call = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
stdin = "" if sys.stdin.isatty() else sys.stdin.read()
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([call, stdin]) + "\\n")
for number, answer in enumerate(json.loads((folder / "answers").read_text())):
    if answer["call"] not in call:
        continue
    given = folder / f"given-{{number}}"
    times = len(given.read_text()) if given.exists() else 0
    if answer["times"] is not None and times >= answer["times"]:
        continue
    given.write_text("x" * (times + 1))
    time.sleep(answer["hangs"])
    sys.stderr.write(answer["errors"])
    sys.stdout.write(answer["output"])
    sys.exit(answer["status"])
"""


@dataclass
class Machine:
    """A PATH with only these programs. A call without a set answer succeeds and prints nothing."""

    folder: Path
    answers: list[dict[str, Any]] = field(default_factory=list)
    torch_index: str = "http://127.0.0.1:9"
    """Where torch's CPU builds are looked for: nobody listens there."""

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        for name in ("sh", "dirname"):
            found = shutil.which(name)
            assert found
            (self.bin / name).symlink_to(found)
        self._write("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    def have(self, *names: str) -> None:
        """Put programs on the PATH."""
        for name in names:
            self._write(name, FAKE.format(python=sys.executable, folder=str(self.folder)))

    def answer(
        self,
        call: str,
        output: object = "",
        errors: str = "",
        status: int = 0,
        hangs: float = 0,
        times: int | None = None,
    ) -> None:
        """Set the answer to calls that contain `call`, or to the first `times` of them; the latest setting wins."""
        text = output if isinstance(output, str) else json.dumps(output)
        answer = {"call": call, "output": text, "errors": errors, "status": status, "hangs": hangs, "times": times}
        self.answers.insert(0, answer)

    def run(self, script: str, *arguments: str, seconds: float = LIMIT) -> subprocess.CompletedProcess[str]:
        for given in self.folder.glob("given-*"):
            given.unlink()
        (self.folder / "answers").write_text(json.dumps(self.answers))
        (self.folder / "calls").write_text("")
        command = [str(ROOT / "scripts" / script), *arguments]
        environment = {"PATH": str(self.bin), "HOME": str(self.folder), "LANG": os.environ.get("LANG", "C.UTF-8")}
        environment["SHANGCAI_TORCH_INDEX"] = self.torch_index
        return subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=seconds
        )

    @property
    def calls(self) -> list[str]:
        """All calls of the last run."""
        return [json.loads(line)[0] for line in (self.folder / "calls").read_text().splitlines()]

    def stdin(self, call: str) -> str:
        """The standard input of the first call that contains `call`."""
        for line in (self.folder / "calls").read_text().splitlines():
            made, text = json.loads(line)
            if call in made:
                return str(text)
        raise AssertionError(f"no call of {call}: {self.calls}")

    def _write(self, name: str, text: str) -> None:
        program = self.bin / name
        program.write_text(text)
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def one_line() -> Callable[[subprocess.CompletedProcess[str]], str]:
    """The only line that a failed script has printed to stderr; it is no traceback."""

    def read(ended: subprocess.CompletedProcess[str]) -> str:
        assert ended.returncode == 1, ended.stdout + ended.stderr
        [line] = ended.stderr.splitlines()
        assert "Traceback" not in line
        return line

    return read
