"""What telemetry costs: a small run, and what is said of one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from scripts.benchmarks.telemetry.telemetry import Side, _line, compare
from scripts.project import ROOT


def test_ratios_are_those_of_the_same_round() -> None:
    process: Any = None
    first = Side("before", process, 0, [1.0, 100.0, 50.0, 100.0], [9.0, 0.001, 0.002, 0.001])
    other = Side("all traced", process, 0, [1.0, 80.0, 40.0, 80.0], [9.0, 0.002, 0.004, 0.002])
    assert _line(other, first) == "all traced: 80 requests/s (0.800), 2.000 ms of a core for each (2.000)"


@pytest.mark.slow
def test_each_side_is_measured() -> None:
    lines = compare(ROOT, requests=20, clients=2, rounds=1)
    assert [line.partition(":")[0] for line in lines] == ["before", "no traces", "a tenth traced", "all traced"]
    assert all(re.search(r"\d+ requests/s \([\d.]+\)", line) for line in lines)
