"""docs/runbook.md and the alerts say the same."""

from __future__ import annotations

import re

import pytest

from contract.problems import PROBLEM_TYPES
from tests.manifests.monitoring.parts import ALERTS, DASHBOARD, PANELS, RUNBOOK

PARTS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.DOTALL | re.MULTILINE))

COMMANDS = [
    re.sub(r"\s+", " ", "".join(either))
    for either in re.findall(r"^(kubectl .+)$|`(kubectl [^`]+)`", RUNBOOK.read_text(), re.MULTILINE)
]


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


def test_each_problem_that_is_a_failure_is_explained_once() -> None:
    explained = re.findall(r"^\| `([a-z-]+)` \|", PARTS["Requests fail"], re.MULTILINE)
    assert explained == [kind.slug for kind in PROBLEM_TYPES if kind.status >= 500]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_of_the_alerts_namespace(command: str) -> None:
    assert "-n NAMESPACE" in command or re.match(r"kubectl (drain|uncordon) NODE", command)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "logs -l" in command])
def test_a_log_of_several_pods_is_whole(command: str) -> None:
    """By default kubectl shows ten lines of each."""
    assert re.search(r" --since=\d+m --tail=-1 \| grep ", command)


@pytest.mark.parametrize("name", ["Requests fail", "Engine not alive", "Store fails", "Webhooks fail"])
def test_a_part_that_asks_for_more_than_panels_has_commands(name: str) -> None:
    assert "kubectl " in PARTS[name]
    assert "```sh" in PARTS[name]
