"""Node with the module, in front of the real web."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.packages.installed import NODE
from tests.support.processes import ROOT
from tests.support.web.served_web import ServedWeb, served_web

MODULE = ROOT / "web" / "page" / "module" / "generate.js"
NAMES = "ProblemError, generate, job, models, status, stream, submit, warm"
LIMIT = 120


class Node:
    """A program that has all of the module, `server` as the options, and `say` to tell the test something. It has LIMIT
    seconds."""

    def __init__(self, script: str, url: str) -> None:
        head = f"import {{ {NAMES} }} from {json.dumps(MODULE.as_uri())};\n"
        head += f"const server = {{ url: {json.dumps(url)} }};\n"
        head += "const say = (value) => console.log(JSON.stringify(value));\n"
        self.process = subprocess.Popen(
            [NODE, "--input-type=module", "--eval", head + script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        self._limit = threading.Timer(LIMIT, self.process.kill)
        self._limit.start()

    def close(self) -> None:
        self._limit.cancel()
        self.process.kill()
        self.process.communicate()

    def next(self) -> Any:
        """What it says next; an error where it ends instead."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self._errors()
        return json.loads(line)

    def rest(self) -> list[Any]:
        """What else it says until it ends."""
        output, errors = self.process.communicate(timeout=LIMIT)
        assert self.process.returncode == 0, errors
        return [json.loads(line) for line in output.splitlines()]

    def _errors(self) -> str:
        return self.process.communicate(timeout=LIMIT)[1]


RunNode = Callable[[str], Node]


@pytest.fixture
def served() -> Iterator[ServedWeb]:
    with served_web() as served:
        yield served


@pytest.fixture
def node(served: ServedWeb) -> Iterator[RunNode]:
    """Runs a program."""
    started: list[Node] = []

    def run(script: str) -> Node:
        started.append(Node(script, served.url))
        return started[-1]

    yield run
    for each in started:
        each.close()
