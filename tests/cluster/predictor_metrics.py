"""How many requests a pod of a predictor has, by its own metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx2

from tests.cluster.cluster import PAUSE_SECONDS, Cluster

RUNNING = "shangcai_num_requests_running"
WAITING = "shangcai_num_requests_waiting"
SAMPLE_SECONDS = 0.05


def gauge(metrics: str, name: str) -> float:
    samples = (line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    return sum(float(value) for series, value in samples if series.partition("{")[0] == name)


def running(url: str) -> float:
    return gauge(httpx2.get(f"{url}/metrics", trust_env=False, timeout=10).raise_for_status().text, RUNNING)


@contextmanager
def most_requests(cluster: Cluster, service: str) -> Iterator[dict[str, float]]:
    """The most requests that each serving pod has at once within the `with`, pods that come meanwhile included."""
    most: dict[str, float] = {}
    over = threading.Event()

    def watch(pod: str, url: str) -> None:
        with httpx2.Client(trust_env=False, timeout=10) as client, suppress(httpx2.HTTPError):  # until the pod goes
            while not over.wait(SAMPLE_SECONDS):
                metrics = client.get(f"{url}/metrics").raise_for_status().text
                most[pod] = max(most.get(pod, 0), gauge(metrics, RUNNING) + gauge(metrics, WAITING))

    def watch_new_pods() -> None:
        while not over.wait(PAUSE_SECONDS):
            begin()

    with ExitStack() as stack:
        seen: set[str] = set()
        watchers: list[threading.Thread] = []

        def begin() -> None:
            for name in {pod["metadata"]["name"] for pod in cluster.serving_pods(service)} - seen:
                seen.add(name)
                url = stack.enter_context(cluster.forward(f"pod/{name}", 8080))
                watchers.append(threading.Thread(target=watch, args=(name, url)))
                watchers[-1].start()

        begin()
        looking = threading.Thread(target=watch_new_pods)
        looking.start()
        try:
            yield most
        finally:
            over.set()
            looking.join()
            for watcher in watchers:
                watcher.join()
