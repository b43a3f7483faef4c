"""The file of the callers' keys: what it may say, and that it is read again."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from web.callers import key_file as module
from web.callers.key_file import KEY_PREFIX, KeyFile, KeyFileError, entry, key_hash, make_key


@pytest.fixture(autouse=True)
def checked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("alice\n", "line 1: must be a name, sha256: with"),
        ("# fine\n\nalice sha256:12\n", "line 3: must be a name"),
        (f"alice {key_hash('x')}\n", "line 1"),
        (f"al/ice sha256:{key_hash('x')}\n", "line 1: a name must be 1 to 128 of"),
        (f"{'a' * 129} sha256:{key_hash('x')}\n", "a name must be"),
        (entry("events", "x"), "a name must be"),
        (entry("alice", "x") + "\n" + entry("bob", "x"), "line 2: alice has the same key"),
        ("#" * (module.FILE_BYTES + 1), "more than"),
        ("\x00", "line 1"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "callers"
    path.write_text(content)
    with pytest.raises(KeyFileError, match=named) as raised:
        KeyFile(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_key_that_stands_there_unhashed_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    path.write_text(f"alice {make_key()}\n")
    with pytest.raises(KeyFileError) as raised:
        KeyFile(path)
    assert KEY_PREFIX not in str(raised.value)


def test_no_file_and_no_readable_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        KeyFile(tmp_path / "callers")
    with pytest.raises(KeyFileError, match="Is a directory"):
        KeyFile(tmp_path)


def test_one_caller_may_have_two_keys(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    path.write_text(entry("alice", "old") + "\r\n" + entry("alice", "new"))
    keys = KeyFile(path)
    assert (keys.caller("old"), keys.caller("new"), keys.caller("other")) == ("alice", "alice", None)


def test_a_secret_that_is_swapped_is_read_again(tmp_path: Path) -> None:
    """As kubelet does it: the folder is a link, and the update moves another link over it."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "callers").write_text(entry("alice", name))
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "callers").symlink_to("..data/callers")
    keys = KeyFile(tmp_path / "callers")
    assert (keys.caller("first"), keys.caller("second")) == ("alice", None)
    (tmp_path / "..tmp").symlink_to("second")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert (keys.caller("first"), keys.caller("second")) == (None, "alice")


@pytest.mark.parametrize("content", ["alice\n", None])
def test_a_file_that_goes_bad_changes_nothing(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "callers"
    path.write_text(entry("alice", "key"))
    keys = KeyFile(path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for _ in range(3):
        assert keys.caller("key") == "alice"
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the keys of before stay good" in record.getMessage()
    path.write_text(entry("bob", "key"))
    assert keys.caller("key") == "bob"


def test_between_two_checks_the_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 1e6)
    path = tmp_path / "callers"
    path.write_text(entry("alice", "key"))
    keys = KeyFile(path)
    path.unlink()
    assert keys.caller("key") == "alice"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "web.callers", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_makes_a_key_and_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    made = [make("alice"), make("bob@example.com")]
    path.write_text("".join(one.stdout for one in made))
    keys = KeyFile(path)
    for one, name in zip(made, ("alice", "bob@example.com"), strict=True):
        key = one.stderr.splitlines()[-1]
        assert key.startswith(KEY_PREFIX)
        assert keys.caller(key) == name
        assert key not in one.stdout


@pytest.mark.slow
def test_the_command_refuses_a_bad_name() -> None:
    refused = make("alice and bob")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "name: must be 1 to 128 of" in refused.stderr
