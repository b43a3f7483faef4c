"""The screen, in the narrowest terminal and a wide one."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from scripts.local.top.readings import History, Readings
from scripts.local.top.screen import screen
from tests.scripts.local.top.expositions import AFTER, BEFORE, MODELS, WAKING, a_look


def rendered(readings: Readings, columns: int) -> list[str]:
    console = Console(width=columns, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(readings, "q: quit"))
    lines = captured.get().splitlines()
    assert all(len(line) <= columns for line in lines), lines
    return [line.rstrip() for line in lines]


def after(*models: dict[str, object]) -> Readings:
    history = History()
    history.add(a_look(100, BEFORE))
    return history.add(a_look(110, AFTER, list(models) or None))


@pytest.mark.parametrize("columns", [80, 120])
def test_a_model_that_works_and_one_that_sleeps(columns: int) -> None:
    text = "\n".join(rendered(after(), columns))
    assert re.match(r"http://127\.0\.0\.1:8080 +q: quit  \d\d:\d\d:\d\d\n", text)
    assert re.search(r"^ +tokens/s +first token\nmodel +state .* \(ended\) +\(mean\)$", text, re.MULTILINE)
    assert re.search(r"^ *poet +ready, \d+ h +4/4 +6 +0 +123\.5 +0\.190 s$", text, re.MULTILINE)
    assert re.search(r"^ *painter +asleep +0/- +0 +0 +0\.0 +-$", text, re.MULTILINE)
    assert "poet 4.3 of 4.1 s scheduling 0.2, loading the weights 4.0 (mean of 2)" in " ".join(text.split())
    assert re.search(r"^jobs +queued 3, running 1; ended: completed 12$", text, re.MULTILINE)
    assert re.search(r"^requests +2\.50/s, errors 0\.50/s, of the last 10 s$", text, re.MULTILINE)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_model_that_wakes_up_says_its_phase_and_how_far_it_is(columns: int) -> None:
    text = " ".join(" ".join(rendered(after(MODELS[0], WAKING), columns)).split())
    words = re.sub(r" 0/- 0 0 0\.0 -", "", text)  # the other columns, where the state takes two lines
    assert "painter waking: loading the weights, 3.1 of 6.1 s" in words


@pytest.mark.parametrize("columns", [80, 120])
def test_a_web_that_is_away_is_said_to_be(columns: int) -> None:
    away = a_look(100, None, [], "web does not say how its models are: Connection refused")
    text = "\n".join(rendered(History().add(away), columns))
    assert "web does not say how its models are: Connection refused" in text
    assert "first token" not in text
    assert re.search(r"^jobs +-$", text, re.MULTILINE)
    assert re.search(r"^requests +-/s, errors -/s$", text, re.MULTILINE)


def test_names_are_no_markup() -> None:
    text = "\n".join(rendered(after({**WAKING, "name": "[red]fox", "phase": "[/]"}), 120))
    assert "[red]fox" in text
    assert "waking: [/]" in text
