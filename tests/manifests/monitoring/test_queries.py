"""The queries of alerts and panels: they parse, and name what the two servers expose."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.manifests.monitoring.parts import ALERTS, QUERIES, SERIES, Query, needed, panel_queries

SELECTOR = re.compile(r"\b(shangcai_\w+)(?:\{([^}]*)\})?")


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_query_names_metrics_and_labels_that_there_are(query: Query) -> None:
    assert query.metrics
    assert query.metrics - SERIES.keys() == set()
    for metric, matchers in SELECTOR.findall(query.expression):
        assert set(re.findall(r"(\w+)(?==~?\")", matchers)) <= SERIES[metric]
    for grouping in re.finditer(r"\bby \(([^)]*)\)", query.expression):
        metric = SELECTOR.findall(query.expression[grouping.end() :])[0][0]
        assert set(grouping[1].split(", ")) <= SERIES[metric]


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_only_counters_have_a_rate(query: Query) -> None:
    for metric in re.findall(r"(?:rate|increase)\((\w+)", query.expression):
        assert metric.endswith(("_total", "_bucket", "_sum", "_count"))
    for metric in query.metrics:
        if metric.endswith(("_total", "_bucket")):
            assert re.search(rf"(?:rate|increase)\({metric}\b", query.expression)


def test_prometheus_can_read_them(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query.expression} for number, query in enumerate(panel_queries())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    answer = subprocess.run([needed("promtool"), "check", "rules", str(file)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"SUCCESS: {len(rules)} rules found" in answer.stdout


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_only_what_its_series_have(name: str) -> None:
    """A label that is not there would be an empty word in the sentence."""
    rule = ALERTS[name]
    said = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    outer = re.search(r"^[\s(]*\w+ by \(([^)]*)\)", rule["expr"])
    assert outer
    assert said <= set(outer[1].split(", "))
    assert "namespace" in said
