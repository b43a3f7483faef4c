"""The official client for JavaScript, for probes: a process of Node that is given one call a line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.openai.files import FILES
from tests.support.packages.installed import NODE

SCRIPTS = Path(__file__).parent / "javascript"
DEADLINE = 180.0


def program_folder(folder: Path, modules: Path) -> Path:
    """Our scripts and files in a folder where the installed packages are found."""
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, folder)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "node_modules").symlink_to(modules)
    return folder


def run_script(folder: Path, script: str, *arguments: str) -> Any:
    """What one of our scripts prints, which is JSON."""
    command = [str(NODE), script, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


class JavaScriptClient:
    """See tests.support.openai.probe.Client. The client's settings are its defaults."""

    language = "javascript"

    def __init__(self, url: str, folder: Path) -> None:
        """`folder` is a `program_folder`."""
        self._node = subprocess.Popen(
            [str(NODE), "client.mjs", url], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert self._node.stdin
        assert self._node.stdout
        self._node.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self._node.stdin.flush()
        line = self._node.stdout.readline()
        assert line, "Node has ended"
        outcome: dict[str, Any] = json.loads(line)
        return outcome

    def close(self) -> None:
        assert self._node.stdin
        assert self._node.stdout
        self._node.stdin.close()
        self._node.wait(DEADLINE)
        self._node.stdout.close()
