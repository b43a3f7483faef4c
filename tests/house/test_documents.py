"""Pages that are made from the code are what the code makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_metrics_is_true() -> None:
    page = subprocess.run(
        [sys.executable, "scripts/describe_metrics.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / "metrics.md").read_text() == page
