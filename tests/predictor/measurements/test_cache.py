"""What was measured is found again, and whatever else lies in its place is not used."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from predictor.errors import ModelError
from predictor.loading import cache_folders
from predictor.measurements import cache as cache_module
from predictor.measurements.cache import ENTRY_BYTES, NOWHERE, MeasurementCache, measurement_cache
from predictor.measurements.records import CostRecord, PictureMeasurements, PictureVerdict
from predictor.measurements.start_times import StartTimes

RECORD = CostRecord(weights=10, once=2, slot=3)


@pytest.fixture
def cache(tmp_path: Path) -> MeasurementCache:
    return MeasurementCache([tmp_path / "new"], kept_in=[tmp_path / "new"])


def entry(cache: MeasurementCache) -> Path:
    kept = cache.keep(RECORD, "key")
    assert kept is not None
    return kept


def test_a_record_is_found_under_its_key_and_of_its_kind(
    cache: MeasurementCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert cache.find(CostRecord, "key") is None
    file = entry(cache)
    assert f"measured, and kept in {file}" in caplog.text
    assert cache.find(CostRecord, "key") == RECORD
    assert f"remembered from {file}" in caplog.text
    assert cache.find(CostRecord, "other") is None
    assert cache.find(PictureVerdict, "key") is None
    assert [file.name for file in file.parent.iterdir()] == [file.name], "nothing half written is left"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "\0" * 20,
        json.dumps({"key": "key", "values": {"weights": 1, "once": 1, "slot": 0}}),
        json.dumps({"key": "key", "values": {"weights": "1", "once": 1, "slot": 1}}),
        json.dumps({"key": "key", "values": {"weights": 1, "once": 1, "slot": 1, "more": 1}}),
        json.dumps({"key": "key"}),
        json.dumps({"values": RECORD.model_dump()}),
        json.dumps({"key": "foreign", "values": RECORD.model_dump()}),
        json.dumps({"key": "key", "values": RECORD.model_dump()}) + " " * ENTRY_BYTES,
    ],
)
def test_what_is_wrong_or_foreign_is_not_used(
    cache: MeasurementCache, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = entry(cache)
    file.write_text(content)
    assert cache.find(CostRecord, "key") is None
    assert f"{file} is not used: " in caplog.text
    entry(cache)
    assert cache.find(CostRecord, "key") == RECORD, "measured anew"


def test_a_folder_in_the_place_of_an_entry_is_a_miss(cache: MeasurementCache) -> None:
    file = entry(cache)
    file.unlink()
    file.mkdir()
    assert cache.find(CostRecord, "key") is None
    assert cache.keep(RECORD, "key") is None


def test_the_first_folder_that_can_be_written_to_keeps(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folders = [tmp_path / "file" / "none", tmp_path / "own"]
    cache = MeasurementCache(folders, kept_in=folders)
    assert entry(cache).parent == tmp_path / "own"
    assert cache.find(CostRecord, "key") == RECORD


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "file").write_text("")
    folders = [tmp_path / "file" / "none"]
    assert MeasurementCache(folders, kept_in=folders).keep(RECORD, "key") is None
    assert "no folder can be written to" in caplog.text
    with pytest.raises(ModelError, match=r"what was measured cannot be kept in .*none: Not a directory"):
        MeasurementCache(kept_in=folders, must_keep=True).keep(RECORD, "key")


def test_the_oldest_are_forgotten_and_files_of_others_are_not(
    cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "ENTRIES", 3)
    keys = [f"fp_{number:016}" for number in range(5)]
    others = entry(cache).with_name("invoice.json")
    for number, key in enumerate(keys):
        others.with_stem(f"invoice-{number}").write_text("{}")
        file = cache.keep(RECORD, key)
        assert file is not None
        os.utime(file, (number, number))
        assert cache.find(CostRecord, keys[0]) == RECORD, "it is in use"
    assert [key for key in keys if cache.find(CostRecord, key)] == [keys[0], *keys[3:]]
    assert len(list(others.parent.glob("invoice-*"))) == 5


def test_a_user_without_a_home_has_no_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert measurement_cache(str(model), "auto", {}).keep(RECORD, "key") is None


def test_nowhere_remembers_nothing() -> None:
    assert measurement_cache("model", "") is NOWHERE
    assert NOWHERE.keep(RECORD, "key") is None
    assert NOWHERE.find(CostRecord, "key") is None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def where(model: Path | str, wanted: str = "auto", **environment: str) -> Path:
    return entry(measurement_cache(str(model), wanted, environment)).parent


def test_a_machine_has_them_in_the_folder_for_caches(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert where(model) == tmp_path / "home/.cache/shangcai"
    assert where(model, XDG_CACHE_HOME=str(tmp_path / "xdg")) == tmp_path / "xdg/shangcai"
    assert where(model, XDG_CACHE_HOME="relative") == tmp_path / "home/.cache/shangcai"
    assert where(model, str(tmp_path / "own")) == tmp_path / "own"


def test_a_pod_has_them_on_a_volume(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert where(model, **pod) == model / ".shangcai"
    assert where("hub/id", **pod) == tmp_path / "home/.cache/shangcai"
    monkeypatch.setattr(cache_folders, "MOUNTED", tmp_path / "mounted")
    (tmp_path / "mounted").mkdir()
    assert where(model, **pod) == tmp_path / "mounted/shangcai"


def test_what_comes_with_the_model_is_found(model: Path, tmp_path: Path) -> None:
    beside = MeasurementCache(kept_in=[model / ".shangcai"])
    entry(beside)
    assert measurement_cache(str(model), str(tmp_path / "own")).find(CostRecord, "key") == RECORD


@pytest.mark.parametrize(
    ("knee", "searched", "slots", "worthwhile"),
    [(4, 16, 16, 4), (4, 16, 2, 2), (4, 16, 32, 4), (16, 16, 8, 8), (16, 16, 32, None)],
)
def test_a_knee_holds_for_as_many_slots_as_were_searched(
    knee: int, searched: int, slots: int, worthwhile: int | None
) -> None:
    known = PictureMeasurements(limited=False, memory=1, cost=RECORD, knee=knee, searched=searched, disturbed=False)
    assert known.worthwhile(slots) == worthwhile


def test_the_next_start_is_expected_to_be_like_the_latest_ones(cache: MeasurementCache) -> None:
    assert StartTimes(cache, model="a").expected_seconds is None
    for seconds in (1000.0, 1000.0, *([2.0, 3.04, 4.0] * 3)):
        StartTimes(cache, model="a").add(seconds)
    assert StartTimes(cache, model="a").expected_seconds == 3.0
    assert StartTimes(cache, model="b").expected_seconds is None
