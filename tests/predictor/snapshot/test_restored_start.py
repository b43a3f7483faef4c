"""A predictor that is told to go on at the gate: it refuses to serve where another engine would be needed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from predictor.snapshot.meeting_point import FIFO, OK, READY, SOCKET
from tests.support.processes import ROOT, free_port
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CRIU is for Linux")

MODEL = ("--model", "models/poet", "--memory", "1Gi")

LOADED = """
from predictor.__main__ import engine_settings
from predictor.restored_start import wait_for_restore
from predictor.settings import Settings
from wire.settings import read_settings
wait_for_restore(read_settings(Settings), engine_settings)
"""
"""Goes to the gate at once."""

SERVING = """
from predictor import __main__ as program
from tests.support.scripted_engine import ScriptedEngine
engine = ScriptedEngine()
engine.load_gate.set()
program._engine = lambda *_: engine
program.run()
"""
"""The whole program, with an engine that has no weights."""


@contextmanager
def at_the_gate(
    folder: Path, program: str, *flags: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", program, *MODEL, "--wait-for-restore", str(folder), *flags]
    with subprocess.Popen(command, cwd=ROOT, env=bare(environment)) as waiting:
        try:
            wait_until(lambda: (folder / READY).exists() or waiting.poll() is not None, "it is at the gate")
            assert waiting.poll() is None
            yield waiting
        finally:
            waiting.kill()


def bare(added: Mapping[str, str] | None) -> dict[str, str]:
    """This environment, in which nobody has said how is computed."""
    said = ("OMP_", "SNAPSHOT_", "ONEDNN_", "MKL_", "ATEN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(said)} | dict(added or {})


def tell(folder: Path, **told: object) -> str:
    """As the launcher does; what the process answers."""
    with socket.socket(socket.AF_UNIX) as listener, Path(os.devnull).open("r+b") as nothing:
        listener.bind(str(folder / SOCKET))
        listener.listen(1)
        listener.settimeout(SECONDS)
        (folder / FIFO).write_text(json.dumps({"socket": str(folder / SOCKET), **told}) + "\n")
        connection, _ = listener.accept()
        with connection, connection.makefile() as answer:
            socket.send_fds(connection, [b"\n"], [nothing.fileno()] * 3)
            return answer.readline().strip()


@pytest.mark.parametrize(
    ("dumped", "here", "reason"),
    [
        (
            {"SNAPSHOT_THREADS": "1"},
            {"OMP_NUM_THREADS": "2"},
            "it was dumped with 1 threads, and here there would be 2",
        ),
        (
            {"OMP_NUM_THREADS": "2"},
            {"OMP_NUM_THREADS": "3"},
            "it was dumped with 2 threads, and here there would be 3",
        ),
        ({"SNAPSHOT_THREADS": "1"}, {"SNAPSHOT_THREADS": "1"}, OK),
        ({"SNAPSHOT_THREADS": "1"}, {"OMP_NUM_THREADS": "1"}, OK),
    ],
)
def test_threads_that_compute(tmp_path: Path, dumped: Mapping[str, str], here: Mapping[str, str], reason: str) -> None:
    with at_the_gate(tmp_path, LOADED, "--port", "0", environment=dumped):
        assert tell(tmp_path, arguments=[*MODEL, "--port", "0"], environment=bare(here)) == reason


def test_threads_that_the_operator_wants_for_small_models_too(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        pytest.skip("a small model has as many as others")
    with at_the_gate(tmp_path, LOADED):
        answer = tell(tmp_path, arguments=MODEL, environment=bare({"OMP_NUM_THREADS": str(cores)}))
    assert answer == f"a small language model was dumped with 1 threads, and here there would be {cores}"


@pytest.mark.parametrize(("dumped", "here"), [({}, "AVX2"), ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, None), ({}, None)])
def test_variables_that_choose_kernels(tmp_path: Path, dumped: Mapping[str, str], here: str | None) -> None:
    """What has been packed is packed for the kernels of the dump."""
    environment = bare({"ONEDNN_MAX_CPU_ISA": here} if here else {})
    with at_the_gate(tmp_path, LOADED, environment=dumped):
        answer = tell(tmp_path, arguments=[*MODEL, "--port", "0"], environment=environment)
    differs = "it was dumped with another ONEDNN_MAX_CPU_ISA, which chooses kernels"
    assert answer == (OK if environment.get("ONEDNN_MAX_CPU_ISA") == dumped.get("ONEDNN_MAX_CPU_ISA") else differs)


@pytest.mark.slow
@pytest.mark.parametrize("told", [{}, {"arguments": [*MODEL, "--name", "summer"]}])
def test_flags_stay_where_none_are_told(tmp_path: Path, told: dict[str, list[str]]) -> None:
    """KServe must not see them while it is imported, before the gate."""
    port = free_port()
    told = {name: [*flags, "--port", str(port)] for name, flags in told.items()}
    with at_the_gate(tmp_path, SERVING, "--name", "spring", "--port", str(port)):
        (tmp_path / FIFO).write_text(json.dumps(told) + "\n")
        assert models(port) == ["summer" if told else "spring"]


def models(port: int) -> list[str]:
    """That are served, once there is an answer."""

    def answer() -> list[str] | None:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=SECONDS) as found:
            names: list[str] = json.load(found)["models"]
            return names
        return None

    return wait_until(answer, "an answer")
