"""The folder in /tmp: nobody else's is written to or believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.local import run_folder
from scripts.local.run_folder import RunFolder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user, which is not there yet, in another place than /tmp."""
    monkeypatch.setattr(run_folder, "_SHARED", tmp_path)
    return tmp_path / f"shangcai-{os.getuid()}"


def test_a_folder_is_held_once_and_free_again_when_it_is_released(home: Path) -> None:
    first, second = RunFolder(8080), RunFolder(8080)
    assert first.hold()
    assert not second.hold()
    assert RunFolder(8081).hold()
    first.release()
    assert second.hold()
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", ["a link", "a file", "open to all"])
def test_what_another_user_may_have_put_there_is_not_used(home: Path, planted: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "8080").mkdir()
    if planted == "a link":
        home.symlink_to(elsewhere)
    elif planted == "a file":
        home.touch()
    else:
        home.mkdir()
        home.chmod(0o777)
    with pytest.raises(OSError, match=r"remove it|File exists"):
        RunFolder(8080).hold()
    assert RunFolder(8080).read() is None
