"""What docs/deploy-laptop.md shows of scripts/doctor is what it says of a cluster that lacks nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.slow
def test_the_guide_shows_what_doctor_says(cluster: Any) -> None:
    said = cluster.doctor("--overlay", "deploy/laptop").stdout
    guide = (ROOT / "docs" / "deploy-laptop.md").read_text()
    assert f"$ scripts/doctor --overlay deploy/laptop\n{said}```" in guide
