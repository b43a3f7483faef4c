"""`scripts/chaos MODE --prometheus FOLDER` says which alerts a run has made fire, and fails for a wrong one."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from scripts.reliability import events, full_store
from scripts.reliability.alerts.prometheus import Fired
from scripts.reliability.alerts.watch import AlertWatch, watching


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where there is a Prometheus to write into it."""
    if shutil.which("prometheus") is None:
        assert not os.environ.get("CI"), "in CI there is prometheus"
        pytest.skip("there is no prometheus")
    return tmp_path / "new"


def run(monkeypatch: pytest.MonkeyPatch, mode: ModuleType, *flags: str) -> int:
    monkeypatch.setattr(sys, "argv", ["chaos", *flags])
    status: int = mode.main()
    return status


def test_it_says_what_fired_and_when_and_what_should_not_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = AlertWatch({"ShangcaiStoreNearlyFull"})
    watch.fired = [Fired("ShangcaiStoreNearlyFull", 60.0, 75.0)]
    assert watch.good
    watch.say()
    assert re.search(r"^ShangcaiStoreNearlyFull fired from ..:..:00 to ..:..:15$", capsys.readouterr().out, re.M)
    watch.fired.append(Fired("ShangcaiStoreFails", 70.0, 71.0))
    assert not watch.good
    watch.say()
    said = capsys.readouterr().out.splitlines()
    assert [line.endswith(", which it should NOT") for line in said] == [False, True]


def test_without_the_flag_nothing_is_watched(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(None, []) as watch:
        pass
    assert watch.good
    assert capsys.readouterr().out == ""


def test_without_a_prometheus_it_says_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="Debian's package prometheus"), watching(tmp_path, []):
        pass


@pytest.mark.slow
@pytest.mark.nightly
def test_nothing_fires_although_the_broker_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, events, "--jobs", "40", "--prometheus", str(folder)) == 0
    assert "no alert has fired\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.nightly
def test_a_run_fails_for_an_alert_that_it_does_not_expect(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = full_store.MAY_FIRE
    monkeypatch.setattr(full_store, "MAY_FIRE", set())
    flags = ["--jobs", "40", "--picture-bytes", "100000", "--budget", "2000000"]
    assert run(monkeypatch, full_store, *flags, "--prometheus", str(folder)) == 1
    said = re.findall(r"^(\w+) fired from .*, which it should NOT$", capsys.readouterr().out, re.M)
    assert said == ["ShangcaiStoreNearlyFull"]
    assert "ShangcaiStoreNearlyFull" in expected
