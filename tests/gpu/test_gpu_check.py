"""scripts/gpu-check, on the CPU: so that it works on the day a GPU is at hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from scripts.gpu.gpu_check import PARTS
from scripts.gpu.wheels import NEEDED, unpack
from tests.support.processes import ROOT

COMMAND = [str(ROOT / "scripts" / "gpu-check"), "--device", "cpu"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the parts share."""
    return tmp_path_factory.mktemp("models")


def check(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, "--out", str(out), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_each_part_finds_its_promises_kept_on_a_cpu(part: str, tmp_path: Path, models: Path) -> None:
    (tmp_path / "models").symlink_to(models)
    checked = check(tmp_path, "--parts", part)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    found = json.loads((tmp_path / f"{part}.json").read_text())
    assert found["machine"]["device"] == "CPU"
    assert len(found["figures"]) > 2
    assert not [figure for figure in found["figures"] if "skipped" in str(figure["value"])]


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    checked = check(tmp_path, "--parts", "parity,speed")
    assert checked.returncode == 2
    assert "there is no part speed; there are parity, " in checked.stderr


def test_a_folder_without_wheels_is_named(tmp_path: Path) -> None:
    checked = check(tmp_path, "--wheels", str(tmp_path))
    assert checked.returncode == 2
    assert f"there are no wheels in {tmp_path}" in checked.stderr


def test_wheels_can_be_imported_once_they_are_unpacked(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried/__init__.py", "WHERE = 'from a wheel'")
    unpack(tmp_path, tmp_path / "packages")
    code = "import carried; print(carried.WHERE)"
    command = [sys.executable, "-c", code]
    imported = subprocess.run(command, env={"PYTHONPATH": str(tmp_path / "packages")}, capture_output=True, text=True)
    assert imported.stdout == "from a wheel\n", imported.stderr


def test_the_versions_of_all_wheels_are_pinned() -> None:
    pinned = set(re.findall(r"(?m)^([\w.-]+)==", (ROOT / "constraints.txt").read_text().replace("_", "-")))
    assert set(NEEDED) <= pinned
