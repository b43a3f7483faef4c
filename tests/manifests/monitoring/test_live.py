"""A real Prometheus scrapes the poet, web, and a process that has values of all of web's metrics: what its alerts and
the dashboard's queries say while all is well, and after the engine has died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx2
import pytest

from scripts.benchmarks.servers import Server, start_server
from scripts.loopback import HOST
from scripts.loopback_http import client
from scripts.project import ROOT
from scripts.reliability.alerts.prometheus import Prometheus, Target, scraping
from scripts.reliability.deployment import redis_server
from tests.manifests.monitoring.parts import ALERTS, needed, panel_queries
from tests.support.processes import free_port
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.slow

TARGETS = 3
ENOUGH_TO_FIRE = 6
"""Scrapes, in which alerts that are pending for two seconds would fire."""

NO_DATA = {
    "What is generated, B": "the poet paints no pictures",
    "Wake-ups, by phase, A": "nothing sleeps",
    "Wake-ups: expected and actual, A": "nothing sleeps",
    "Wake-ups: expected and actual, B": "nothing sleeps",
    "Engines, B": "the engine lives",
    "Trouble at the models, C": "nothing is refused",
    "Attempts at jobs, B": "no other replica has begun one",
    "Events, by outcome, A": "there are no events over REST",
    "Events, by outcome, B": "there are no events over REST",
    "Webhooks, by outcome, A": "nobody asks for one",
    "Refused and asked again, B": "nothing is asked again",
}
"""Panels that the servers leave empty, and why."""


@dataclass(frozen=True)
class Deployment:
    web: Server
    predictor: Server
    prometheus: Prometheus

    def scraped(self, times: int) -> bool:
        return self.prometheus.scraped(TARGETS, times)

    def ask(self, prompt: str, **headers: str) -> httpx2.Response:
        with client(SECONDS) as http:
            return http.post(f"{self.web.url}/generate", json={"prompt": prompt, "max_tokens": 8}, headers=headers)


@pytest.fixture(scope="module")
def exposition() -> Iterator[Target]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.manifests.monitoring.exposition", str(port)], cwd=ROOT)
    try:
        yield Target(f"http://{HOST}:{port}", {"namespace": "exposition", "pod": "web-1"})
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def deployment(exposition: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The poet behind web, whose jobs are in a Redis."""
    program = needed("prometheus")
    with ExitStack() as stack:
        flags = ["--model", str(ROOT / "models" / "poet"), "--name", "poet", "--no-lean-imports"]
        predictor = stack.enter_context(
            start_server("tests.manifests.monitoring.mortal_predictor", flags, "/v2/health/ready")
        )
        store = stack.enter_context(redis_server())
        flags = ["--models", json.dumps({"poet": predictor.url}), "--store-url", store]
        web = stack.enter_context(start_server("web", flags, "/healthz"))
        targets = [
            Target(predictor.metrics_url, {"pod": "poet-predictor-1", "model": "poet"}),
            Target(web.metrics_url, {"pod": "web-1"}),
            exposition,
        ]
        folder = tmp_path_factory.mktemp("prometheus")
        yield Deployment(web, predictor, stack.enter_context(scraping(program, folder, targets)))


def test_nothing_fires_in_quiet_traffic_and_the_panels_have_data(deployment: Deployment) -> None:
    wait_until(partial(deployment.scraped, 1), "all are scraped")
    for number in range(1, ENOUGH_TO_FIRE + 1):
        for prompt in ("春雨", "床前明月光"):
            assert deployment.ask(prompt).status_code == 200
        assert deployment.ask("a job", Prefer="wait=60").json()["text"]
        wait_until(partial(deployment.scraped, number), f"all are scraped {number} times")
    assert deployment.prometheus.fired() == []
    empty = set()
    for query in panel_queries():
        expression = query.expression.replace('namespace=~".*"', 'namespace="shangcai"')
        assert expression != query.expression
        if not deployment.prometheus.query(expression):
            empty.add(query.where)
    assert empty == set(NO_DATA)


@pytest.fixture(scope="module")
def dead_engine(deployment: Deployment) -> Deployment:
    os.kill(deployment.predictor.pid, signal.SIGUSR1)
    assert deployment.ask("春雨", **{"X-Request-Timeout": "2"}).is_server_error
    wait_until(lambda: deployment.prometheus.query("shangcai_engine_alive == 0"), "the engine is seen to be dead")
    return deployment


def test_a_dead_engine_fires_its_alert_alone(dead_engine: Deployment) -> None:
    """One request found it out, which is too few to be an alert of its own: that takes six."""
    prometheus = dead_engine.prometheus
    firing = wait_until(prometheus.firing, "an alert fires")
    assert list(firing) == ["ShangcaiEngineNotAlive"]
    labels, annotations = (firing["ShangcaiEngineNotAlive"][key] for key in ("labels", "annotations"))
    assert labels["severity"] == ALERTS["ShangcaiEngineNotAlive"]["labels"]["severity"]
    assert annotations["summary"] == "The engine of poet in shangcai makes no progress"
    assert "poet-predictor-1" in annotations["description"]
    [before] = prometheus.query("max(count_over_time(up[5m]))")
    later = int(before["value"][1]) + ENOUGH_TO_FIRE
    wait_until(partial(dead_engine.scraped, later), "whatever follows has had the time to fire")
    assert [fired.alert for fired in prometheus.fired()] == ["ShangcaiEngineNotAlive"]


def test_every_panel_whose_series_are_there_has_data(dead_engine: Deployment) -> None:
    """One query is about engines that are not alive."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for query in panel_queries():
        served = [dead_engine.prometheus.query(selector) for selector in query.selectors]
        data = dead_engine.prometheus.query(query.expression)
        if all(served):
            found[bool(data)].append(query.where)
    assert found[False] == []
    assert len(found[True]) > 40
