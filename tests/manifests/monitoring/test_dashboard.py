"""dashboard.json: what Grafana would not say is wrong with it."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from tests.manifests.checks.objects import walk
from tests.manifests.monitoring.parts import DASHBOARD, PANELS, VARIABLES

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
TYPES = {"timeseries", "stat", "bargauge"}
UNITS = {"short", "s", "reqps", "ops", "percentunit"}
WIDTH = 24

each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def test_no_panel_lies_over_another() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    places = [panel["gridPos"] for panel in everything]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= WIDTH for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_it_is_of_a_current_form() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["uid"]
    assert "__inputs" not in DASHBOARD  # those of an export, which only a person could fill in


def test_its_variables_are_those_that_queries_use() -> None:
    used = {name for _, value in walk(DASHBOARD) if isinstance(value, str) for name in re.findall(r"\$\{?(\w+)", value)}
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "namespace", "model"]
    assert used - {"__all"} == {*variables, "__rate_interval"} == {*VARIABLES, "datasource"}


def test_all_that_reads_data_reads_that_of_the_chosen_prometheus() -> None:
    sources = [value for path, value in walk(DASHBOARD) if path.endswith(".datasource")]
    queries = [panel["targets"] for panel in PANELS]
    assert len(sources) == len(PANELS) + sum(map(len, queries)) + 2
    assert all(source == DATA_SOURCE for source in sources)


@each_panel
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["type"] in TYPES
    assert panel["title"][0].isupper()
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@each_panel
def test_a_panel_tells_its_series_apart(panel: dict[str, Any]) -> None:
    """What a legend names is what the query groups by."""
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len(targets)
    assert len({target["legendFormat"] for target in targets}) == len(targets)
    for target in targets:
        grouped = re.search(r"\bby \(([^)]*)\)", target["expr"])
        labels = set(grouped[1].split(", ")) - {"le"} if grouped else set()
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == labels


@each_panel
def test_a_panel_is_of_the_chosen_namespaces(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        selectors = re.findall(r"shangcai_\w+(\{[^}]*\})?", target["expr"])
        assert all('namespace=~"$namespace"' in selector for selector in selectors)


def test_titles_are_of_one_panel_each() -> None:
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
