"""Scale to zero and back on a real cluster, with the retention of tests/cluster/short-retention.

SHANGCAI_SLEEP_SECONDS (120) is how long requests are sent around the moments of falling asleep.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from tests.cluster.asking import Answer, ask
from tests.cluster.cluster import PAUSE_SECONDS, Cluster, is_going
from tests.cluster.prompts import CAT, POEM
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.serial]

SLEEP_SECONDS = 180.0
"""Several times Knative's grace period, the window, the retention period and the 30 s that a pod takes to go."""

ROUNDS = 2
"""Cold starts that are measured of each model: the slower one is what others may take one and a half times."""

MARGIN = 1.5
SERVICES = {"text": "text-predictor", "image": "image-predictor"}
REQUESTS = {"text": POEM, "image": CAT}


def sleep(cluster: Cluster, *services: str) -> None:
    """Wait until they sleep. In whichever order: web may outlast a model or not."""
    wait_until(
        lambda: all(cluster.is_asleep(service) for service in services),
        f"{' and '.join(services)} sleep",
        SLEEP_SECONDS,
        PAUSE_SECONDS,
    )


def wait_until_gone(cluster: Cluster, *services: str) -> None:
    """Wait until no pod of theirs is left, the ones that are going included."""
    wait_until(
        lambda: not any(cluster.pods(service) for service in services),
        f"no pod of {' and '.join(services)} is left",
        SLEEP_SECONDS,
        PAUSE_SECONDS,
    )


@pytest.fixture(scope="module")
def job(cluster: Cluster, web: httpx2.Client) -> str:
    """The address of a job that has ended before everything fell asleep."""
    answer = web.post("/generate", json=POEM, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    location: str = answer.headers["location"]
    wait_until(
        lambda: web.get(location).raise_for_status().json()["state"] == "completed",
        "the job is done",
        900,
        PAUSE_SECONDS,
    )
    sleep(cluster, "web", *SERVICES.values())
    return location


def test_a_job_outlives_web(cluster: Cluster, web: httpx2.Client, job: str) -> None:
    answer = web.get(job)
    assert answer.status_code == 200, answer.text
    ended = answer.json()
    assert ended["state"] == "completed"
    assert ended["result"]["text"].strip()
    assert cluster.is_asleep("text-predictor")  # the result was stored, and is not generated again


def test_a_request_wakes_a_model_that_is_asleep(cluster: Cluster, web: httpx2.Client) -> None:
    sleep(cluster, "text-predictor")
    names: list[str] = []
    with web.stream("POST", "/generate", json={**POEM, "stream": True}) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: ") and names[-1] == "error":
                raise AssertionError(json.loads(line.removeprefix("data: ")))
    assert names[0] == "status"  # before the model was awake
    assert "token" in names
    assert names[-1] == "result"
    assert not cluster.is_asleep("text-predictor")


@dataclass(frozen=True)
class Waking:
    """What was measured of a model: the slowest answer from zero, and times since the answer before."""

    cold: float
    asleep: float
    """When no pod was left that stays."""
    gone: float
    """When the last pod had ended."""


@pytest.fixture(scope="module")
def wakings(cluster: Cluster, web: httpx2.Client) -> dict[str, Waking]:
    """Of each model, with web asleep, too, and no pod left that is still going."""
    found = {}
    for model, service in SERVICES.items():
        cold = asleep = gone = 0.0
        for _ in range(ROUNDS):
            wait_until_gone(cluster, "web", service)
            answer = ask(web, REQUESTS[model])
            assert not answer.failure, answer.failure
            begun = time.monotonic()
            sleep(cluster, service)
            asleep = time.monotonic() - begun
            wait_until_gone(cluster, service)
            gone = time.monotonic() - begun
            cold = max(cold, answer.seconds)
        found[model] = Waking(cold, asleep, gone)
    return found


@dataclass(frozen=True)
class Sent:
    """One request: when, to which model, and whether it had a pod then."""

    moment: float
    model: str
    pods: str
    answer: Answer

    @property
    def row(self) -> str:
        outcome = self.answer.failure or "200"
        return f"{self.moment:8.1f} s  {self.model:<6} {self.pods:<7} {self.answer.seconds:7.2f} s  {outcome}"


def pauses(waking: Waking) -> Iterator[float]:
    """By turns: to about the moment at which the pod is told to go, or while it goes; and hardly any."""
    while True:
        yield random.uniform(0.8 * waking.asleep, waking.gone)
        yield random.uniform(0, 0.2 * waking.asleep)


def state(cluster: Cluster, service: str) -> str:
    pods = cluster.pods(service)
    if not pods:
        return "none"
    return "going" if all(is_going(pod) for pod in pods) else "awake"


def test_no_request_is_lost_around_falling_asleep(
    cluster: Cluster, web: httpx2.Client, wakings: dict[str, Waking], capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = float(os.environ.get("SHANGCAI_SLEEP_SECONDS", "120"))
    begun = time.monotonic()
    over = threading.Event()
    alone = threading.Lock()  # two models that wake at once share the node's cores, and no cold start was measured so
    sent: list[Sent] = []
    faults: list[BaseException] = []

    def client(model: str) -> None:
        """At least one request, however short the time is."""
        try:
            for number, pause in enumerate(pauses(wakings[model])):
                if over.wait(pause) and number:
                    return
                with alone:
                    pods = state(cluster, SERVICES[model])
                    moment = time.monotonic() - begun
                    sent.append(Sent(moment, model, pods, ask(web, REQUESTS[model])))
        except BaseException as error:
            faults.append(error)

    clients = [threading.Thread(target=client, args=(model,)) for model in SERVICES]
    for thread in clients:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in clients:
        thread.join()
    with capsys.disabled():
        print("\n\n    moment  model  pods       answer")
        for entry in sorted(sent, key=lambda entry: entry.moment):
            print(entry.row)
        for model, waking in wakings.items():
            times = f"asleep after {waking.asleep:.0f} s, gone after {waking.gone:.0f} s"
            print(f"{model}: {waking.cold:.2f} s from zero; {times}")
    assert faults == []
    assert {entry.model for entry in sent} == set(SERVICES)
    assert [entry.row for entry in sent if entry.answer.failure] == []
    slow = [entry.row for entry in sent if entry.answer.seconds > MARGIN * wakings[entry.model].cold]
    assert slow == [], f"over {MARGIN} times a cold start"
