"""What deploy/components/monitoring has: alerts and panels, and the metrics that their queries name."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import predictor.metrics
import web.metrics

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "components" / "monitoring"
RUNBOOK = ROOT / "docs" / "runbook.md"

RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yaml").read_text())["spec"]
"""As Prometheus reads a file of rules."""
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}

DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {"namespace": ".*", "model": ".*", "__rate_interval": "5m"}
"""What Grafana puts into a query for them, with all namespaces and models."""

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
TARGET_LABELS = {"namespace", "pod"}
"""What Prometheus adds to whatever it scrapes with our PodMonitors; and `model` to what predictors say."""


@dataclass(frozen=True)
class Query:
    where: str
    expression: str

    def __str__(self) -> str:
        return self.where

    @property
    def metrics(self) -> set[str]:
        return set(re.findall(r"\bshangcai_\w+", self.expression))

    @property
    def selectors(self) -> list[str]:
        """Its metrics with the values of labels that it wants."""
        return re.findall(r"\bshangcai_\w+(?:\{[^}]*\})?", self.expression)


def _series() -> dict[str, set[str]]:
    """The names that the two servers expose, each with its labels."""
    found = {}
    for module, added in ((web.metrics, TARGET_LABELS), (predictor.metrics, TARGET_LABELS | {"model"})):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                for suffix in SUFFIXES[str(metric._type)]:
                    labels = {*metric._labelnames, *added, *(["le"] if suffix == "_bucket" else [])}
                    found[f"{metric._name}{suffix}"] = labels
    return found


SERIES = _series()


def panel_queries() -> list[Query]:
    found = []
    for panel in PANELS:
        for target in panel["targets"]:
            expression = re.sub(r"\$(\w+)", lambda name: VARIABLES[name[1]], target["expr"])
            found.append(Query(f"{panel['title']}, {target['refId']}", expression))
    return found


QUERIES = [*(Query(name, rule["expr"]) for name, rule in ALERTS.items()), *panel_queries()]


def needed(program: str) -> str:
    """The path of a program that Debian's package prometheus has."""
    path = shutil.which(program)
    if path is None:
        assert not os.environ.get("CI"), f"in CI there is {program}"
        pytest.skip(f"there is no {program}")
    return path
