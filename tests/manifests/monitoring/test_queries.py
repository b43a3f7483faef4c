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


def test_the_time_of_generations_that_all_fail_is_shown_for_the_average_one(tmp_path: Path) -> None:
    """Of four a minute, each of 6 s, one came no further than its first phase."""
    counts = {"limit": ("0+8x30", "0+4x30"), "queue": ("0+16x30", "0+3x30")}
    series = [
        {"series": f'shangcai_web_phase_seconds_{suffix}{{namespace="shangcai", model="poet", phase="{phase}"}}'}
        | {"values": values}
        for phase, both in counts.items()
        for suffix, values in zip(("sum", "count"), both, strict=True)
    ]
    [query] = [query for query in panel_queries() if query.where.startswith("Where the time goes")]
    samples = [{"labels": '{phase="limit"}', "value": 2}, {"labels": '{phase="queue"}', "value": 4}]
    expected = {"expr": query.expression, "eval_time": "20m", "exp_samples": samples}
    file = tmp_path / "test.yaml"
    file.write_text(
        yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [expected]}]})
    )
    answer = subprocess.run([needed("promtool"), "test", "rules", str(file)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_only_what_its_series_have(name: str) -> None:
    """A label that is not there would be an empty word in the sentence."""
    rule = ALERTS[name]
    said = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    outer = re.search(r"^[\s(]*\w+ by \(([^)]*)\)", rule["expr"])
    assert outer
    assert said <= set(outer[1].split(", "))
    assert "namespace" in said
