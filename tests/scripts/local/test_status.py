"""What scripts/run --status prints."""

from __future__ import annotations

import re
import time

import pytest

from scripts.local.status import print_status


def test_the_status_is_a_line_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    model: dict[str, object] = {
        "kind": "text",
        "url": "",
        "phase": None,
        "why": None,
        "retry_at": None,
        "wake_seconds": [],
    }
    state = {
        "models": {
            "poet": model | {"state": "asleep", "since": now - 61, "wake_seconds": [4.0, 5.0, 9.0]},
            "painter": model | {"state": "waking", "since": now - 2, "phase": "importing torch"},
            "broken": model | {"state": "failed", "since": now - 9, "why": "no weights", "retry_at": now + 4},
        }
    }
    assert print_status(state, 8080) == 0
    poet, painter, broken = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"poet: asleep since \d\d:\d\d:\d\d, 61 s; wakes up in 5\.0 s", poet)
    assert re.fullmatch(r"painter: waking since [\d:]+, 2 s; importing torch", painter)
    assert re.fullmatch(r"broken: failed since [\d:]+, 9 s; no weights; a request starts it again in 4 s", broken)

    assert print_status(None, 8080) == 1
    assert capsys.readouterr().err == "scripts/run: nothing runs on port 8080 that scripts/run has started\n"


@pytest.mark.parametrize(
    ("template", "lines"),
    [
        (None, []),
        ({"state": "ready", "resident_bytes": 2**28, "why": None}, ["template: ready; 256 MiB of memory"]),
        ({"state": "off", "resident_bytes": 0, "why": "it has ended"}, ["template: off; it has ended"]),
    ],
)
def test_the_template_has_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], template: dict[str, object] | None, lines: list[str]
) -> None:
    assert print_status({"models": {}, "template": template}, 8080) == 0
    assert capsys.readouterr().out.splitlines() == lines
