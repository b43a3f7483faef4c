"""A real Prometheus with our rules, which scrapes each second."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.manifests.monitoring.parts import RULES
from tests.support.processes import free_port
from tests.support.waiting import SECONDS, eventually

FOR = "2s"
"""In the place of minutes: how long alerts are pending."""


@dataclass(frozen=True)
class Target:
    """What is scraped, with the labels that our PodMonitors give it."""

    url: str
    labels: dict[str, str]

    @property
    def scrape_config(self) -> dict[str, Any]:
        address = self.url.removeprefix("http://")
        return {"targets": [address], "labels": {"namespace": "shangcai"} | self.labels}


class Prometheus:
    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, which must not fail."""
        answer = await self._client.get("/api/v1/query", params={"query": expression})
        document = answer.json()
        assert document["status"] == "success", document
        assert not document.get("warnings"), document
        result: list[dict[str, Any]] = document["data"]["result"]
        return result

    async def scraped(self, targets: int, times: int) -> None:
        """Wait until so many targets have been scraped so often."""

        async def done() -> bool:
            return len(await self.query(f"count_over_time(up[1m]) >= {times} and up == 1")) == targets

        await eventually(done, f"{targets} targets have been scraped {times} times")

    async def firing(self) -> dict[str, dict[str, Any]]:
        alerts = (await self._client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    async def ready(self) -> bool:
        try:
            return (await self._client.get("/-/ready")).status_code == 200
        except httpx2.TransportError:
            return False


@asynccontextmanager
async def scraping(program: str, folder: Path, targets: Sequence[Target]) -> AsyncIterator[Prometheus]:
    """Its data are in `folder`."""
    rules = re.sub(r"for: \d+[mh]$", f"for: {FOR}", yaml.safe_dump(RULES), flags=re.MULTILINE)
    (folder / "rules.yaml").write_text(rules)
    jobs = [{"job_name": "shangcai", "static_configs": [target.scrape_config for target in targets]}]
    every_second = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    document = {"global": every_second, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(document))
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=SECONDS) as client:
            prometheus = Prometheus(client)
            await eventually(prometheus.ready, "Prometheus is ready")
            yield prometheus
    finally:
        process.kill()
        await process.wait()
