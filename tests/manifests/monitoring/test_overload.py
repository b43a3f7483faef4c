"""A real Prometheus scrapes a web that is asked for more than its model, or its store, takes."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from scripts.benchmarks.servers import start_server
from scripts.loopback_http import async_client
from scripts.reliability.alerts.prometheus import Target, scraping
from scripts.reliability.deployment import redis_server, stub_models
from tests.manifests.monitoring.parts import needed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

WEB = {"pod": "web-1"}
CLIENTS = 4
HANGING = {"prompt": "x", "seed": 1, "max_tokens": 1_000, "temperature": 2}
"""At the stub's pace, minutes."""


async def test_a_saturated_queue_fires_its_alerts_alone(tmp_path: Path) -> None:
    """Refusals are a 503 each, which are no failures of requests."""
    with ExitStack() as stack:
        model = stack.enter_context(stub_models())
        flags = ["--models", json.dumps({"poet": model}), "--idle-seconds", "0"]
        flags += ["--max-in-flight", "1", "--max-waiting", "1"]
        web = stack.enter_context(start_server("web", flags, "/healthz"))
        seconds_for_minutes = {"_waiting_seconds) > 120": "_waiting_seconds) > 3"}
        targets = [Target(web.metrics_url, WEB)]
        prometheus = stack.enter_context(scraping(needed("prometheus"), tmp_path, targets, seconds_for_minutes))
        async with async_client() as http, asyncio.TaskGroup() as group:

            async def ask_all_the_time() -> None:
                while True:
                    answer = await http.post(web.url + "/generate", json=HANGING)
                    assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE, answer.text
                    await asyncio.sleep(0.1)

            clients = [group.create_task(ask_all_the_time()) for _ in range(CLIENTS)]
            expected = {"ShangcaiQueueFull", "ShangcaiQueueWaitLong"}
            await eventually(lambda: prometheus.firing().keys() == expected, f"{expected} fire")
            for client in clients:
                client.cancel()
        assert {fired.alert for fired in prometheus.fired()} == expected


async def test_a_store_that_is_nearly_full_fires_its_alert_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        model = stack.enter_context(stub_models())
        flags = ["--models", json.dumps({"painter": {"url": model, "kind": "image"}}), "--idle-seconds", "0"]
        flags += ["--store-url", stack.enter_context(redis_server()), "--store-bytes", "2000000"]
        web = stack.enter_context(start_server("web", flags, "/healthz"))
        targets = [Target(web.metrics_url, WEB)]
        prometheus = stack.enter_context(scraping(needed("prometheus"), tmp_path, targets))
        await eventually(lambda: prometheus.scraped(1, 5))
        assert prometheus.fired() == []
        async with async_client() as http:
            for seed in range(30):
                order = {"prompt": "100000", "kind": "image", "seed": seed}
                answer = await http.post(web.url + "/generate", json=order, headers={"Prefer": "wait=60"})
                assert answer.is_success, answer.text
        await eventually(prometheus.firing, "an alert fires")
        assert [fired.alert for fired in prometheus.fired()] == ["ShangcaiStoreNearlyFull"]
