"""The gate: what a process that passes it is told, and that its random numbers are new."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from predictor.snapshot.gate import Restored, draw_seeds
from tests.support.processes import ROOT
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CRIU is for Linux")

AT_THE_GATE = """
import json, os, sys
from pathlib import Path
from predictor.snapshot.gate import Gate
gate = Gate(Path(sys.argv[1]))
gate.wait()
open(os.environ["WHERE"], "w").write(json.dumps([sys.argv[1:], os.environ.get("OLD")]))
"""


def test_whoever_writes_to_the_fifo_lets_it_pass(tmp_path: Path) -> None:
    folder = tmp_path / "gate"
    waiting = subprocess.Popen(
        [sys.executable, "-c", AT_THE_GATE, str(folder)], cwd=ROOT, env={**os.environ, "OLD": "there"}
    )
    try:
        wait_until((folder / "ready").exists, "it may be dumped")
        files = [os.readlink(f"/proc/{waiting.pid}/fd/{number}") for number in range(3)]
        assert files == [os.devnull] * 3
        passed = tmp_path / "passed"
        told = {"arguments": ["--port", "1"], "environment": {"WHERE": str(passed)}}
        (folder / "restored").write_text(json.dumps(told) + "\n")
        assert waiting.wait(SECONDS) == 0
        assert json.loads(passed.read_text()) == [["--port", "1"], None]
    finally:
        waiting.kill()
        waiting.wait()


def test_what_is_left_out_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLOUR", "green")
    before = list(sys.argv)
    Restored.of(b"{}\n").apply()
    Restored.of(b"").apply()
    assert os.environ["COLOUR"] == "green"
    assert sys.argv == before


@pytest.mark.parametrize("line", [b"no json\n", b'{"arguments": ['])
def test_a_line_that_is_none_of_the_launchers(line: bytes) -> None:
    with pytest.raises(ValueError, match="Expecting"):
        Restored.of(line)


def test_random_numbers_are_new() -> None:
    import numpy
    import torch

    drawn = set()
    for _ in range(2):
        random.seed(1)
        numpy.random.seed(1)
        torch.manual_seed(1)
        draw_seeds()
        drawn |= {random.random(), float(numpy.random.rand()), float(torch.rand(()))}
    assert len(drawn) == 6
