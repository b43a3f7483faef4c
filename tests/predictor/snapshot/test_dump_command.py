"""`python -m predictor dump`: which settings go into a snapshot, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from predictor.dump_command import engine_arguments
from predictor.settings import Settings
from tests.support.processes import ROOT
from wire.settings import read_settings


def test_only_what_an_engine_is_made_of_goes_in() -> None:
    given = ["--model", "models/poet", "--slots", "4", "--memory", "2Gi", "--no-pack-weights", "--guidance", "1.5"]
    given += ["--token", "a-secret-of-the-build", "--store-url", "redis://:secret@redis:6379/0", "--port", "1234"]
    given += ["--name", "spring", "--enable-thinking", "--kind", "text"]
    arguments = engine_arguments(read_settings(Settings, given))
    assert not [word for word in arguments if "secret" in word or "spring" in word or "1234" in word]
    kept = read_settings(Settings, arguments)
    for name in ("model", "slots", "memory", "pack_weights", "guidance", "enable_thinking", "kind"):
        assert getattr(kept, name) == getattr(read_settings(Settings, given), name), name
    assert engine_arguments(Settings()) == []


def dump(*arguments: str, criu: str = "/nowhere/criu") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "predictor", "dump", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "SNAPSHOT_CRIU": criu}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("--model", "models/poet")])
def test_it_needs_a_folder(arguments: tuple[str, ...]) -> None:
    answer = dump(*arguments)
    assert answer.returncode == 2
    assert answer.stderr == "usage: python -m predictor dump FOLDER [--FLAG VALUE …]\n"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    answer = dump(str(tmp_path), "--model", "models/poet")
    assert answer.returncode == 1
    assert answer.stderr == f"predictor dump: {tmp_path} is not empty\n"
