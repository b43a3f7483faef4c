"""The comparison of alone and together, with requests that are answered at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from unittest import mock

import httpx2
import pytest

from scripts.benchmarks import bench, contention


async def answer(_: httpx2.AsyncClient, number: int) -> int:
    assert number >= 0
    await asyncio.sleep(0)
    return 1


def test_each_is_measured_alone_beside_the_other_and_beside_busy_loops() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments))  # type: ignore[call-overload]
        return started[-1]

    popen = subprocess.Popen
    with (
        mock.patch.object(contention, "ASK", {"poet": answer, "painter": answer}),
        mock.patch.object(subprocess, "Popen", start),
    ):
        found = contention.measure_round({"poet": "http://a", "painter": "http://b"}, 0.01)
    assert list(found) == [
        ("poet", "painter"),
        ("painter", "poet"),
        ("poet", contention.BUSY),
        ("painter", contention.BUSY),
    ]
    assert all(speed > 0 for pair in found.values() for speed in pair)
    assert len(started) == 2 * len(os.sched_getaffinity(0))
    assert all(loop.returncode for loop in started)


def test_ratios_are_of_the_same_round(capsys: pytest.CaptureFixture[str]) -> None:
    pair = ("poet", "painter")
    contention.print_table([{pair: (100.0, 50.0)}, {pair: (10.0, 6.0)}, {pair: (1000.0, 100.0)}])
    assert capsys.readouterr().out.splitlines()[1].split() == ["poet", "beside", "painter", "100.00", "50.00", "0.50"]


def test_it_is_a_command_of_scripts_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/bench", "contention", "--help"])
    with pytest.raises(SystemExit, match="0"):
        bench.main()
