"""`scripts/make-secrets`: Secrets that the manifests name and that web and the predictors can read."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from predictor.settings import Settings as PredictorSettings
from scripts.cluster import secrets
from web.callers.caller import is_caller_name
from web.callers.key_file import KeyFile
from web.settings import Settings

ROOT = Path(__file__).parents[3]


def run(*names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts" / "make-secrets", *names], capture_output=True, text=True, timeout=60)


def data(document: Any) -> dict[str, dict[str, str]]:
    return {item["metadata"]["name"]: item["stringData"] for item in document["items"]}


def test_what_it_prints_is_read_by_both_servers(tmp_path: Path) -> None:
    ended = run("ann", "bob")
    assert ended.returncode == 0, ended.stderr
    printed = data(json.loads(ended.stdout))
    keys = dict(re.findall("the key of (.+): (.+)", ended.stderr))
    file = tmp_path / "keys"
    file.write_text(printed["web-callers"]["callers"])
    callers = KeyFile(file)
    assert {name: callers.caller(key) for name, key in keys.items()} == {"ann": "ann", "bob": "bob"}
    assert not any(key in ended.stdout for key in keys.values())
    token = printed["predictor-token"]["token"]
    assert (
        PredictorSettings(token=token).token
        == Settings(models={"a": "http://a.test"}, predictor_token=token).predictor_token
    )


def test_each_run_makes_others() -> None:
    first, second = (secrets.documents({"ann": "k"}) for _ in range(2))
    assert data(first)["predictor-token"] != data(second)["predictor-token"]
    assert set(data(first)["web-callers"]) == {"callers"}  # web draws its own secret


@pytest.mark.parametrize("name", ["events", "default", "a b", "", "ä", "x" * 129])
def test_a_name_that_web_does_not_take_is_refused(name: str) -> None:
    assert not is_caller_name(name)
    ended = run(name)
    assert ended.returncode == 2
    assert "no name of a caller" in ended.stderr
    assert not ended.stdout


@pytest.mark.parametrize("name", ["ann", "team:poets", "a.b@c-d_e", "x" * 128])
def test_its_names_are_those_of_web(name: str) -> None:
    assert is_caller_name(name)
    assert re.fullmatch(secrets.NAME, name)
