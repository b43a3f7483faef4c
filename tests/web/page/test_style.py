"""What the styles and the texts name is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import web.page
from tests.support.processes import ROOT

STATIC = Path(web.page.__file__).parent / "static"
STYLES = "".join(path.read_text() for path in sorted(STATIC.rglob("*.css")))
REPORTED = re.compile(r'(?:\breport\(|^(?:CONVERTING|WAITING_FOR_CONVERSION) = )"([^"]+)"', re.MULTILINE)
"""The phases of a predictor's start."""


def texts(language: str) -> dict[str, str]:
    module = (STATIC / "texts" / f"{language}.js").read_text()
    found: dict[str, str] = json.loads(module.removeprefix("export default ").rstrip().removesuffix(";"))
    return found


def test_what_moves_is_told_how() -> None:
    used = set(re.findall(r"\banimation: (?!none)(\w+)", STYLES))
    assert used
    assert used == set(re.findall(r"@keyframes (\w+)", STYLES))


def test_each_colour_that_is_used_is_named() -> None:
    used = set(re.findall(r"var\((--[\w-]+)\)", STYLES))
    assert used <= set(re.findall(r"(--[\w-]+):", STYLES)) | {"--columns", "--at", "--done"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_phase_of_a_start_has_words(language: str) -> None:
    sources = [path.read_text() for path in (ROOT / "predictor").rglob("*.py")]
    phases = {phase for source in sources for phase in REPORTED.findall(source)}
    assert {"loading the weights", "checking the batch", "converting the GGUF file"} <= phases
    assert phases - {name.removeprefix("phase.") for name in texts(language)} == set()


def test_the_texts_on_demand_are_there_in_each_language() -> None:
    module = (STATIC / "on_demand" / "texts.js").read_text()
    names = [
        re.findall(r'^\t\t"([^"]+)":', part, re.MULTILINE) for part in re.split(r"^\t\w+: \{", module, flags=re.M)[1:]
    ]
    assert len(names) == 2
    assert names[0] == names[1]
    asked = set(re.findall(r'\bsay\("([^"]+)"', "".join(path.read_text() for path in STATIC.rglob("*.js"))))
    assert asked <= set(names[0])
