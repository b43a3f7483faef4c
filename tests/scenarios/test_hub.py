"""scripts/run with models of a hub: which kind they are of, and which settings they get."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import httpx2
import pytest

from tests.support.fake_hub import serve
from tests.support.processes import ROOT
from tests.support.run import Start

pytestmark = pytest.mark.slow

POET = ROOT / "models" / "poet"
PAINTER = ROOT / "models" / "painter"


def test_the_example_of_the_readme_serves_a_text_and_an_image_model(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = set(re.findall(r"scripts/run (--model \S+ --model [\w./-]+)", (ROOT / "README.md").read_text()))
    flags = shlex.split(example)
    with serve({flags[1]: POET, flags[3]: PAINTER}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        run = start(*flags)
        run.wait_until_ready()

        text = httpx2.post(f"{run.url}/generate", json={"prompt": "春雨", "max_tokens": 5}, timeout=60)
        picture = httpx2.post(
            f"{run.url}/generate",
            json={"prompt": "画一只猫", "model": "sdxl-turbo", "steps": 1},
            headers={"Accept": "image/png"},
            timeout=60,
        )
    assert text.json()["model"] == "Qwen3-0.6B"
    assert picture.content.startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_model_has_a_name_and_settings_of_its_own(start: Start) -> None:
    run = start("--model", f"verse={POET},max-length=99", "--model", f"{PAINTER}")
    run.wait_for("verse: importing")
    environments = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        if f"predictor\0--model\0{POET}\0--name\0verse\0" in command.read_text():
            environments.append((command.parent / "environ").read_text().split("\0"))
    [variables] = environments
    assert "PREDICTOR_MAX_LENGTH=99" in variables
    assert "PREDICTOR_KIND=text" in variables


def test_a_hub_that_cannot_be_asked_is_one_line_that_says_what_to_add(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = start("--model", "nobody/has-loaded-this")
    assert run.wait() == 1
    [line] = run.output.splitlines()
    assert line.startswith("scripts/run: there is no folder nobody/has-loaded-this, and the hub does not say whether")
    assert line.endswith("as in --model nobody/has-loaded-this,kind=image")


def test_a_model_that_lies_in_models_is_named_at_once(start: Start) -> None:
    run = start("--model", "poet")
    assert run.wait() == 1
    assert run.output.endswith("scripts/run: there is no folder poet; did you mean models/poet?\n")


def test_an_empty_model_is_refused(start: Start) -> None:
    run = start("--model", "")
    assert run.wait() == 2
    assert "--model : it is empty; give a folder or a hub id" in run.output
