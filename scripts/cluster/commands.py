"""Runs commands with a time limit, and tells their failures in one line."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

QUESTION_SECONDS = 30.0
"""Longest that a command may take that changes nothing."""


class Failure(Exception):
    """A failure that the user can do something about, told in one line."""


@dataclass(frozen=True)
class Commands:
    """Runs commands, or only prints them if `dry`."""

    dry: bool = False

    def run(self, argv: list[str], what: str, seconds: float, stdin: str = "", shown: bool = False) -> str:
        """What a command printed, unless that is `shown` to the user. `what` names the step in messages.

        Raises a Failure if it cannot be started, fails, or takes longer than `seconds`.
        """
        if self.dry:
            print(f"{shlex.join(argv)} <<'END'\n{stdin.rstrip()}\nEND" if stdin else shlex.join(argv))
            return ""
        try:
            status, output, errors = execute(argv, seconds, stdin, shown)
        except subprocess.TimeoutExpired:
            raise Failure(f"{what}: `{shlex.join(argv)}` took longer than {seconds:.0f} s") from None
        except OSError as error:
            raise Failure(f"{what}: {argv[0]} cannot be started: {error}") from None
        if status:
            said = (errors.strip() or output.strip() or "its lines above say why").splitlines()[-1]
            raise Failure(f"{what}: `{shlex.join(argv)}` ended with {status}: {said}")
        return output

    def ask(self, argv: list[str]) -> str | None:
        """What a command that changes nothing prints; None if it fails, or in a dry run: there nothing exists yet."""
        if self.dry:
            return None
        with suppress(subprocess.TimeoutExpired, OSError):
            status, output, _ = execute(argv, QUESTION_SECONDS)
            return None if status else output
        return None


def execute(argv: list[str], seconds: float, stdin: str = "", shown: bool = False) -> tuple[int, str, str]:
    """Exit status, standard output and standard error. After `seconds` it is killed with all processes it has started.

    Raises a subprocess.TimeoutExpired then, and an OSError if it cannot be started.
    """
    into = None if shown else subprocess.PIPE
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=into, stderr=into, text=True, start_new_session=True)
    try:
        output, errors = process.communicate(stdin, max(seconds, 0.1))
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output or "", errors or ""


def find_tool(tools: tuple[str, ...], dry: bool) -> str:
    """The first of these that is on the PATH, or just the first in a dry run; raises a Failure if there is none."""
    for tool in tools:
        if shutil.which(tool):
            return tool
    if dry:
        return tools[0]
    raise Failure(f"{' or '.join(tools)} is needed, and {'neither is' if len(tools) > 1 else 'it is not'} on the PATH")
