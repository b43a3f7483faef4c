"""Debian's Prometheus with the rules of deploy/components/monitoring. It scrapes each second, and alerts are pending
for two, not for minutes: so that a run of a minute shows them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.loopback import HOST, free_port
from scripts.loopback_http import client
from scripts.project import ROOT
from scripts.reliability.deployment import running, wait_until_it_answers

RULES = ROOT / "deploy" / "components" / "monitoring" / "rules.yaml"
SECONDS = 30.0
"""Longest that an answer takes."""

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


@dataclass(frozen=True)
class Fired:
    """An alert, and when it fired first and last, in seconds since the epoch."""

    alert: str
    first: float
    last: float


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url
        self._begun = time.time()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, which must not fail."""
        result: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return result

    def scraped(self, targets: int, times: int) -> bool:
        """Whether so many targets have been scraped so often, and still are."""
        return len(self.query(f"count_over_time(up[5m]) >= {times} and up == 1")) == targets

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire now, by name."""
        alerts = self._get("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    def fired(self) -> list[Fired]:
        """All that have fired since it was started."""
        seconds = int(time.time() - self._begun) + 1
        times: dict[str, list[float]] = {}
        for series in self.query(f'ALERTS{{alertstate="firing"}}[{seconds}s]'):
            times.setdefault(series["metric"]["alertname"], []).extend(at for at, _ in series["values"])
        fired = (Fired(alert, min(each), max(each)) for alert, each in times.items())
        return sorted(fired, key=lambda one: one.first)

    def _get(self, what: str, **parameters: str | float) -> dict[str, Any]:
        with client(SECONDS) as http:
            document = http.get(f"{self._url}/api/v1/{what}", params=parameters).json()
        assert document["status"] == "success", document
        assert not document.get("warnings"), document
        data: dict[str, Any] = document["data"]
        return data


@contextmanager
def scraping(
    program: str, folder: Path, targets: Sequence[Target], changes: Mapping[str, str] | None = None
) -> Iterator[Prometheus]:
    """Its data are in `folder`. `changes` are further ones of the rules, as texts and what takes their place."""
    rules = re.sub(r"for: \d+[mh]$", f"for: {FOR}", RULES.read_text(), flags=re.MULTILINE)
    for old, new in (changes or {}).items():
        assert old in rules, old
        rules = rules.replace(old, new)
    (folder / "rules.yaml").write_text(yaml.safe_dump(yaml.safe_load(rules)["spec"]))
    jobs = [{"job_name": "shangcai", "static_configs": [target.scrape_config for target in targets]}]
    every_second = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    document = {"global": every_second, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(document))
    address = f"{HOST}:{free_port()}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    with running(command):
        wait_until_it_answers(f"http://{address}/-/ready")
        yield Prometheus(f"http://{address}")
