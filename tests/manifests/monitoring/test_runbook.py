"""docs/runbook.md and the alerts say the same."""

from __future__ import annotations

import re

import pytest

from tests.manifests.monitoring.parts import ALERTS, DASHBOARD, PANELS, RUNBOOK

PARTS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.DOTALL | re.MULTILINE))


def heading(alert: str) -> str:
    """`ShangcaiWakeUpsFail` is "Wake-ups fail"."""
    words = re.findall(r"[A-Z][a-z]*", alert.removeprefix("Shangcai"))
    return " ".join(words).replace("Wake Up", "Wake-Up").capitalize()


def test_each_alert_has_a_part_and_each_part_an_alert() -> None:
    assert [heading(alert) for alert in ALERTS] == list(PARTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_its_part(alert: str) -> None:
    anchor = heading(alert).lower().replace(" ", "-")
    assert ALERTS[alert]["annotations"]["runbook_url"] == f"docs/runbook.md#{anchor}"
    part = PARTS[heading(alert)]
    assert re.findall(r"^\*(\w+)\.\*|^\*\*(\w+)\*\*", part, re.MULTILINE) == [
        (ALERTS[alert]["labels"]["severity"].capitalize(), ""),
        ("", "Look"),
        ("", "Do"),
    ]


def test_the_panels_that_it_names_are_there() -> None:
    text = re.sub(r"\s+", " ", RUNBOOK.read_text())
    named = set(re.findall(r'"([A-Z][^"]+)"', text))
    assert len(named) > 10
    assert named - {panel["title"] for panel in PANELS} == {DASHBOARD["title"]}
