"""A deployed service from zero: how long each phase takes until the first token or the picture, and what is lost.

It waits until the model sleeps, asks through web, and takes the wake-up apart: by the pods' conditions and events, by
Knative's, and by the predictor's own metrics; against a scripts/run on this machine by its state and the metrics. In
some wake-ups what wakes is killed, and other clients ask and leave. Exits with 1 if a request is lost or doubled.

A caller's key is read from SHANGCAI_KEY.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from scripts.benchmarks.wake.clients import Answer, Service, find_service
from scripts.benchmarks.wake.deployments import ClusterDeployment, Deployment, LocalDeployment, Timeline
from scripts.benchmarks.wake.timeline import PHASES
from scripts.cluster.doctor.cluster_state import ClusterState, NotFound, Unreachable
from scripts.local.run_folder import RunFolder
from scripts.loopback import HOST
from scripts.progress import tracked

POLL_SECONDS = 0.25

USUAL_SECONDS = 2.0
"""How long a wake-up takes, before one was measured: kills and clients that leave come within that."""


@dataclass
class Wake:
    """One of them. `lefts` are the clients that asked meanwhile and left."""

    answer: Answer
    timeline: Timeline
    killed: bool
    lefts: int

    @property
    def lost(self) -> bool:
        return bool(self.answer.failure)

    @property
    def doubled(self) -> bool:
        more = self.timeline.finished is not None and self.timeline.finished > 1 + self.lefts
        return self.answer.doubled or more


class Waker:
    """Wakes a service again and again. `kills` is the share of wake-ups in which what wakes is killed."""

    def __init__(
        self, service: Service, deployment: Deployment, asleep_seconds: float, kills: float = 0.0, leavers: int = 0
    ) -> None:
        self._service = service
        self._deployment = deployment
        self._asleep_seconds = asleep_seconds
        self._kills = kills
        self._leavers = leavers
        self._random = random.Random(1)
        self._seconds = USUAL_SECONDS  # the last undisturbed wake-up
        self._due = 0.0  # kills that the share asks for by now

    def wake(self) -> Wake:
        """Wait until the model sleeps, and wake it. Raises SystemExit where it does not sleep in time."""
        self._wait_until_asleep()
        with self._service.client() as http:
            http.get("/healthz").raise_for_status()  # web may sleep, too
        self._due += self._kills
        kills = self._due >= 1
        self._due -= kills
        answered = threading.Event()
        killed: list[bool] = []
        beside = [threading.Thread(target=self._leave, args=(self._random.random(),)) for _ in range(self._leavers)]
        if kills:
            share = self._random.random()
            beside.append(threading.Thread(target=lambda: killed.append(self._kill(answered, share))))
        asked_at = time.time()
        for thread in beside:
            thread.start()
        answer = self._service.ask()
        answered.set()
        for thread in beside:
            thread.join()
        timeline = self._deployment.timeline(asked_at)
        if not any(killed) and not answer.failure:
            self._seconds = answer.first_s
        return Wake(answer, timeline, any(killed), self._leavers)

    def _wait_until_asleep(self) -> None:
        deadline = time.monotonic() + self._asleep_seconds
        while not self._deployment.asleep():
            if time.monotonic() > deadline:
                raise SystemExit(f"scripts/bench wake: the model does not sleep within {self._asleep_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def _leave(self, share: float) -> None:
        self._service.leave(max(0.05, share * self._seconds))

    def _kill(self, answered: threading.Event, share: float) -> bool:
        """Whether something was killed: at some moment of the wake-up, from its begin on."""
        while not answered.is_set():
            if share and not self._deployment.asleep():
                answered.wait(share * self._seconds)  # once, after the begin was seen
                share = 0
            if not share and self._deployment.kill():
                return True
            answered.wait(POLL_SECONDS / 5)
        return False


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench wake", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="of web")
    parser.add_argument("--host", help="Host header, where the address is that of an ingress")
    parser.add_argument("--model", help="which of web's models (the first)")
    parser.add_argument("--prompt", help="what it is asked (a poem or a cat)")
    parser.add_argument("--rounds", type=int, default=10, help="wake-ups")
    parser.add_argument("--kills", type=float, default=0.0, help="share of them in which what wakes is killed")
    parser.add_argument("--leavers", type=int, default=0, help="clients that ask and leave during each")
    parser.add_argument("--asleep-seconds", type=float, default=900.0, help="longest until the model sleeps")
    parser.add_argument("--context", help="of kubectl")
    parser.add_argument("--namespace", default="shangcai")
    parser.add_argument("--service", help="Knative Service of the model (MODEL-predictor)")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.kills <= 1:
        parser.error("--kills is a share, from 0 to 1")
    headers = {"Host": arguments.host} if arguments.host else {}
    if key := os.environ.get("SHANGCAI_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    service = find_service(arguments.url.rstrip("/"), headers, arguments.model, arguments.prompt)
    address = urlsplit(arguments.url)
    deployment: Deployment
    if address.hostname in ("localhost", HOST) and RunFolder(address.port or 80).read():
        deployment = LocalDeployment(address.port or 80, service.model)
    else:
        name = arguments.service or f"{service.model}-predictor"
        deployment = ClusterDeployment(ClusterState(arguments.context), arguments.namespace, name)
    waker = Waker(service, deployment, arguments.asleep_seconds, arguments.kills, arguments.leavers)
    wakes: list[Wake] = []
    try:
        for number in tracked(range(1, arguments.rounds + 1), "wake-ups"):
            wakes.append(waker.wake())
            print(f"{number} of {arguments.rounds}: {_line(wakes[-1])}", file=sys.stderr, flush=True)
    except (Unreachable, NotFound) as error:
        raise SystemExit(f"scripts/bench wake: kubectl: {error}") from None
    print(report(service, wakes))
    if any(wake.lost or wake.doubled for wake in wakes):
        raise SystemExit(1)


def report(service: Service, wakes: Sequence[Wake]) -> str:
    """Medians and p99 of the wake-ups without a kill by phase, and of those with one as a whole; and the counts."""
    what = "first token" if service.kind == "text" else "picture"
    whole = [wake for wake in wakes if not wake.lost and not wake.killed]
    killed = [wake.answer.first_s for wake in wakes if not wake.lost and wake.killed]
    rows = {name: [wake.timeline.phases[name] for wake in whole if name in wake.timeline.phases] for name in PHASES}
    rows[f"request to {what}"] = [wake.answer.first_s for wake in whole]
    rows[f"request to {what}, with a kill"] = killed
    lines = [f"{service.model} from zero, seconds", f"{'':<38}{'median':>8}{'p99':>8}{'of':>6}"]
    for name, seconds in rows.items():
        if seconds:
            lines.append(f"{name:<38}{statistics.median(seconds):>8.2f}{percentile(seconds):>8.2f}{len(seconds):>6}")
    counts = {
        "wake-ups": len(wakes),
        "killed": sum(wake.killed for wake in wakes),
        "left": sum(wake.lefts for wake in wakes),
        "lost": sum(wake.lost for wake in wakes),
        "doubled": sum(wake.doubled for wake in wakes),
    }
    lines.append(", ".join(f"{name} {count}" for name, count in counts.items()))
    return "\n".join(lines)


def percentile(seconds: Sequence[float], percent: int = 99) -> float:
    """The value that so many of a hundred do not exceed: of fewer than a hundred the largest."""
    return sorted(seconds)[max(0, -(-len(seconds) * percent // 100) - 1)]


def _line(wake: Wake) -> str:
    what = wake.answer.failure or f"{wake.answer.first_s:.2f} s"
    return what + (", after a kill" if wake.killed else "") + (", DOUBLED" if wake.doubled else "")
