"""Whatever is killed or goes wrong: each accepted job ends once, by its deadline, and is generated once.

Real processes: web, the predictor with the poet, Redis, and a broker that behaves like Knative's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from contract.cloudevents import COMPLETED, FAILED, REQUESTED
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LIMIT = 60.0
JOBS = 8
SECRET = "a secret of the tests"
ENDS = ("completed", "failed", "cancelled")

Start = Callable[..., Any]


class Front:
    """What a client does at one replica of web."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client

    def submit(self, number: int, **body: Any) -> str:
        """The id of an accepted job."""
        request = {"prompt": f"第{number}首 春雨", "max_tokens": 24, "seed": number, **body}
        answer = self.client.post("/generate", json=request, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
        job: str = answer.json()["id"]
        return job

    def submit_many(self, count: int = JOBS, **body: Any) -> list[str]:
        return [self.submit(number, **body) for number in range(count)]

    def job(self, job: str) -> dict[str, Any]:
        document: dict[str, Any] = self.client.get(f"/generations/{job}").raise_for_status().json()
        return document

    def states(self, jobs: list[str]) -> list[str]:
        return [self.job(job)["state"] for job in jobs]

    def all_ended(self, jobs: list[str]) -> list[str]:
        """Their ends, once each has one."""
        wait_until(lambda: all(state in ENDS for state in self.states(jobs)), f"the end of {len(jobs)} jobs", 2 * LIMIT)
        return self.states(jobs)

    def events(self, job: str) -> str:
        return self.client.get(f"/generations/{job}", headers={"Accept": "text/event-stream"}).text


ClientOf = Callable[[str], Front]


@pytest.fixture
def client_of() -> Iterator[ClientOf]:
    with ExitStack() as clients:

        def make(url: str) -> Front:
            return Front(clients.enter_context(httpx2.Client(base_url=url, timeout=LIMIT, trust_env=False)))

        yield make


def runs(predictor: Any) -> int:
    """Texts that the predictor has written to their end since it was started."""
    metrics = httpx2.get(predictor.url + "/metrics", trust_env=False).text
    return sum(int(float(number)) for number in re.findall(r"^shangcai_request_success_total.* (\S+)$", metrics, re.M))


def begun(predictor: Any) -> int:
    """Requests that have had a slot, the warm-up too."""
    metrics = httpx2.get(predictor.url + "/metrics", trust_env=False).text
    [number] = re.findall(r"^shangcai_request_queue_time_seconds_count (\S+)$", metrics, re.MULTILINE)
    return int(float(number))


@pytest.fixture
def by_events(start_web: Start, start_predictor: Start, broker: Any) -> Callable[..., Any]:
    """web that dispatches to the broker, which asks the predictor and brings the replies back."""

    def start(store: str | None = None, chaos: dict[str, Any] | None = None, **trigger: Any) -> Any:
        predictor = start_predictor()
        environment = {"DISPATCH": "EVENTS", "K_SINK": broker.url, "EVENTS_SECRET": SECRET}
        if store is not None:
            environment["STORE_URL"] = store
        web = start_web({"poet": {"kind": "text"}}, **environment)
        back = {"subscriber": web.url + "/events", "headers": {"Authorization": f"Bearer {SECRET}"}}
        delivery = {"retry": 10, "backoffDelay": 0.1, "retryAfterMax": 2, "timeout": 30}
        request = {
            "name": "requests",
            "filter": {"type": REQUESTED},
            "subscriber": predictor.url,
            "deadLetterSink": web.url + "/events",
            **delivery,
            **trigger,
        }
        replies = [{"name": kind, "filter": {"type": kind}, **back, **delivery} for kind in (COMPLETED, FAILED)]
        broker.configure(triggers=[request, *replies], chaos=chaos or {})
        return web, predictor

    return start


def test_a_predictor_killed_in_the_middle_is_asked_again(
    start_web: Start, start_predictor: Start, client_of: ClientOf
) -> None:
    predictor = start_predictor("--max-concurrency", "2")
    front = client_of(start_web({"poet": predictor.url}).url)
    jobs = front.submit_many()
    wait_until(lambda: "running" in front.states(jobs), "a running job", 2 * LIMIT)
    predictor.kill9()
    done = front.states(jobs).count("completed")
    predictor.restart()
    assert front.all_ended(jobs) == ["completed"] * JOBS
    assert runs(predictor) - 1 == JOBS - done, "the warm-up, and each job that was not done, once"


def test_a_predictor_killed_in_the_middle_gets_its_events_again(
    by_events: Callable[..., Any], client_of: ClientOf
) -> None:
    web, predictor = by_events(retry=30)
    front = client_of(web.url)
    jobs = front.submit_many()
    wait_until(lambda: begun(predictor) > 2, "a text that is being written", 2 * LIMIT)
    predictor.kill9()
    predictor.restart()
    assert front.all_ended(jobs) == ["completed"] * JOBS


def test_a_replica_that_dies_leaves_its_jobs_to_the_other(
    start_web: Start, start_predictor: Start, redis_server: Any, client_of: ClientOf
) -> None:
    predictor = start_predictor("--max-concurrency", "1")
    models = {"poet": predictor.url}
    first = start_web(models, STORE_URL=redis_server.url)
    jobs = client_of(first.url).submit_many()
    wait_until(lambda: "running" in client_of(first.url).states(jobs), "a running job", 2 * LIMIT)
    first.kill9()
    second = client_of(start_web(models, STORE_URL=redis_server.url).url)
    assert second.all_ended(jobs) == ["completed"] * JOBS


def test_jobs_are_shared_by_replicas(
    start_web: Start, start_predictor: Start, redis_server: Any, client_of: ClientOf
) -> None:
    """Made on one, watched, fetched and cancelled on the other."""
    predictor = start_predictor("--max-concurrency", "1")
    first, second = (client_of(start_web({"poet": predictor.url}, STORE_URL=redis_server.url).url) for _ in range(2))
    job = first.submit(1)
    told = second.events(job)
    assert told.count("event: result") == 1
    assert "".join(re.findall(r'data: {"text":"(.*?)"}', told)) in told.rpartition("event: result")[2]
    assert second.job(job)["state"] == "completed"
    before = [first.submit(number, max_tokens=400) for number in range(4, 12)]  # one at a time
    behind = first.submit(2, max_tokens=200)
    assert second.client.delete(f"/generations/{behind}").json()["state"] == "cancelled"
    assert first.job(behind)["error"]["type"].endswith("cancelled")
    assert first.all_ended([*before, first.submit(3)]) == ["completed"] * 9


@pytest.mark.parametrize("dispatch", ["rest", "events"])
def test_redis_killed_and_back_loses_nothing(
    start_web: Start,
    start_predictor: Start,
    by_events: Callable[..., Any],
    redis_server: Any,
    dispatch: str,
    client_of: ClientOf,
) -> None:
    if dispatch == "rest":
        predictor = start_predictor()
        web = start_web({"poet": predictor.url}, STORE_URL=redis_server.url)
    else:
        web, predictor = by_events(store=redis_server.url)
    front = client_of(web.url)
    jobs = front.submit_many()
    redis_server.kill()
    redis_server.start()
    assert front.all_ended(jobs) == ["completed"] * JOBS


def test_a_broker_that_delivers_everything_three_times(by_events: Callable[..., Any], client_of: ClientOf) -> None:
    web, predictor = by_events(chaos={"duplicates": "always 3"})
    front = client_of(web.url)
    jobs = front.submit_many()
    assert front.all_ended(jobs) == ["completed"] * JOBS
    assert runs(predictor) - 1 == JOBS, "each event was generated once"
    assert all(front.events(job).count("event: result") == 1 for job in jobs)


def test_a_reply_that_is_there_before_the_broker_has_answered(
    by_events: Callable[..., Any], broker: Any, client_of: ClientOf
) -> None:
    web, _ = by_events(chaos={"answerDelay": 3})
    front = client_of(web.url)
    job = front.submit(1)
    assert front.all_ended([job]) == ["completed"]
    broker.settle()


def test_a_broker_that_sleeps_for_five_seconds(by_events: Callable[..., Any], client_of: ClientOf) -> None:
    web, predictor = by_events(chaos={"holdFirst": 5})
    front = client_of(web.url)
    jobs = front.submit_many()
    assert front.all_ended(jobs) == ["completed"] * JOBS
    assert runs(predictor) - 1 == JOBS


def test_a_broker_that_gives_up_too_soon_joins_what_runs(
    by_events: Callable[..., Any], broker: Any, client_of: ClientOf
) -> None:
    web, predictor = by_events(timeout=0.3, retry=200)
    front = client_of(web.url)
    jobs = front.submit_many(max_tokens=200, prompt="写一首关于明月的八句诗")
    assert front.all_ended(jobs) == ["completed"] * JOBS
    assert runs(predictor) - 1 == JOBS
    assert broker.tally()["retries"] > 0, "it did give up"


def test_a_dead_letter_ends_its_job_with_the_reason(
    start_web: Start, broker: Any, subscriber: Callable[[], Any], client_of: ClientOf
) -> None:
    web = start_web({"poet": {"kind": "text"}}, DISPATCH="EVENTS", K_SINK=broker.url)
    refusing = subscriber()
    refusing.answer = lambda _letter: (503, {"content-type": "text/plain"}, b"no")
    trigger = {"name": "requests", "subscriber": refusing.url, "retry": 1, "deadLetterSink": web.url + "/events"}
    broker.configure(triggers=[{**trigger, "filter": {"type": REQUESTED}}])
    front = client_of(web.url)
    job = front.submit(1)
    assert front.all_ended([job]) == ["failed"]
    error = front.job(job)["error"]
    assert error["type"].endswith("undelivered")
    assert "503" in error["detail"]


def test_no_job_is_open_after_its_deadline(
    start_web: Start, broker: Any, redis_server: Any, client_of: ClientOf
) -> None:
    """Nobody answers, and web itself is not there when the time is over."""
    flags = {"DISPATCH": "EVENTS", "K_SINK": broker.url, "STORE_URL": redis_server.url}
    web = start_web({"poet": {"kind": "text"}}, **flags)
    front = client_of(web.url)
    answer = front.client.post(
        "/generate", json={"prompt": "春"}, headers={"Prefer": "respond-async", "X-Request-Timeout": "1"}
    )
    job = answer.json()["id"]
    assert web.stop() == 0
    over = time.time() + 1
    wait_until(lambda: time.time() > over, "the deadline has passed")
    web.restart()
    assert front.job(job)["state"] == "failed"
    assert front.job(job)["error"]["type"].endswith("too-late")


def test_a_sync_client_sees_no_difference(by_events: Callable[..., Any], start_web: Start) -> None:
    web, predictor = by_events()
    direct = start_web({"poet": predictor.url})
    request = {"prompt": "春雨", "seed": 3}
    with ThreadPoolExecutor() as pool:
        answers = list(
            pool.map(lambda url: httpx2.post(url + "/generate", json=request, timeout=LIMIT), (web.url, direct.url))
        )
    by_event, by_rest = (answer.json() for answer in answers)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert by_event["text"] == by_rest["text"]
    assert by_rest.keys() - by_event.keys() == {"system_fingerprint"}  # older replicas cannot read it in a stored job
    named = {"X-Request-Id": "the-same"}
    refused = [
        httpx2.post(url + "/generate", json={"prompt": " "}, headers=named, timeout=LIMIT)
        for url in (web.url, direct.url)
    ]
    assert [answer.json() for answer in refused] == [refused[0].json()] * 2
