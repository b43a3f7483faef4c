"""A real Prometheus scrapes processes that serve our metrics: what its alerts and the dashboard's queries then say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.manifests.monitoring.parts import ALERTS, needed, panel_queries
from tests.manifests.monitoring.prometheus import Prometheus, Target, scraping
from tests.support.processes import ROOT, free_port
from tests.support.scripted_engine import ScriptedEngine
from tests.support.serving import serving
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

ENOUGH_TO_FIRE = 6
"""Scrapes, in which alerts that are pending for two seconds would fire."""
ENOUGH_FOR_A_RATE = 2


@pytest.fixture
def engine() -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.load_gate.set()
    return engine


@pytest.fixture
async def predictor_url(engine: ScriptedEngine) -> AsyncIterator[str]:
    from predictor.protocols.kserve_text import TextModel

    model = TextModel("poet", engine)
    async with serving(model) as (_, url):
        await eventually(lambda: model.startup.ready)
        yield url


@pytest.fixture
def web_url() -> Iterator[str]:
    """What stands for web: its metrics, each with a value."""
    port = free_port()
    command = [sys.executable, "-m", "tests.manifests.monitoring.exposition", str(port)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def targets(predictor_url: str, web_url: str) -> list[Target]:
    return [
        Target(predictor_url, {"pod": "poet-predictor-1", "model": "poet"}),
        Target(web_url, {"pod": "web-1"}),
    ]


@pytest.fixture
async def prometheus(targets: list[Target], tmp_path: Path) -> AsyncIterator[Prometheus]:
    async with scraping(needed("prometheus"), tmp_path, targets) as prometheus:
        yield prometheus


async def test_only_the_alert_of_what_is_wrong_fires(
    prometheus: Prometheus, targets: list[Target], engine: ScriptedEngine
) -> None:
    await prometheus.scraped(len(targets), ENOUGH_TO_FIRE)
    assert await prometheus.firing() == {}
    engine.is_alive = False
    await eventually(prometheus.firing, "an alert fires")
    firing = await prometheus.firing()
    assert list(firing) == ["ShangcaiEngineNotAlive"]
    labels, annotations = (firing["ShangcaiEngineNotAlive"][key] for key in ("labels", "annotations"))
    assert labels["severity"] == ALERTS["ShangcaiEngineNotAlive"]["labels"]["severity"]
    assert annotations["summary"] == "The engine of poet in shangcai makes no progress"
    assert "poet-predictor-1" in annotations["description"]


async def test_every_panel_whose_series_are_there_has_data(
    prometheus: Prometheus, targets: list[Target], engine: ScriptedEngine
) -> None:
    engine.is_alive = False  # one query is about those that are not
    await prometheus.scraped(len(targets), ENOUGH_FOR_A_RATE)
    found: dict[bool, list[str]] = {True: [], False: []}
    for query in panel_queries():
        served = [await prometheus.query(selector) for selector in query.selectors]
        data = await prometheus.query(query.expression)
        if all(served):
            found[bool(data)].append(query.where)
    assert found[False] == []
    assert len(found[True]) > 40
