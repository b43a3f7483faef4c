"""`--prometheus FOLDER` of `scripts/chaos`: which alerts a run has made fire, and whether it should have."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from scripts.benchmarks.servers import Server
from scripts.reliability.alerts.prometheus import Fired, Target, scraping
from web.telemetry.refreshed_metrics import REFRESH_SECONDS

LAST_SECONDS = REFRESH_SECONDS + 5.0
"""After the run: web shows within them how full its store is at the end, and what is wrong then fires."""


class AlertWatch:
    """What has fired, once the run is over."""

    def __init__(self, expected: Collection[str]) -> None:
        self._expected = expected
        self.fired: list[Fired] = []

    @property
    def good(self) -> bool:
        """Whether only those have fired that may."""
        return all(fired.alert in self._expected for fired in self.fired)

    def say(self) -> None:
        for fired in self.fired:
            times = " to ".join(datetime.fromtimestamp(at).strftime("%H:%M:%S") for at in (fired.first, fired.last))
            print(f"{fired.alert} fired from {times}{'' if fired.alert in self._expected else ', which it should NOT'}")
        if not self.fired:
            print("no alert has fired")


def add_prometheus_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prometheus",
        type=Path,
        metavar="FOLDER",
        help="run a Prometheus with our alerts, pending for 2 s, whose data stay in FOLDER; where one fires that "
        "should not, the run has failed",
    )


@contextmanager
def watching(
    folder: Path | None, webs: Sequence[Server], predictors: Sequence[Server] = (), expected: Collection[str] = ()
) -> Iterator[AlertWatch]:
    """A Prometheus scrapes the servers as long as this lasts; nothing happens without a folder."""
    watch = AlertWatch(expected)
    if folder is None:
        yield watch
        return
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("there is no prometheus; it is in Debian's package prometheus")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    targets = [Target(web.metrics_url, {"pod": f"web-{number}"}) for number, web in enumerate(webs, 1)]
    targets += [
        Target(predictor.metrics_url, {"pod": f"poet-predictor-{number}", "model": "poet"})
        for number, predictor in enumerate(predictors, 1)
    ]
    with scraping(program, folder, targets) as prometheus:
        yield watch
        time.sleep(LAST_SECONDS)
        watch.fired = prometheus.fired()
    watch.say()
