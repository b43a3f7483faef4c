"""What is counted of wake-ups: answered, lost, doubled, killed and left."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from scripts.benchmarks import bench
from scripts.benchmarks.wake import wake
from scripts.benchmarks.wake.clients import Answer, Service, find_service
from scripts.benchmarks.wake.deployments import Timeline
from scripts.benchmarks.wake.wake import Wake, Waker, percentile, report
from tests.support.waiting import wait_until
from wire.listener import listen

WHOLE = [
    ("status", {"state": "waking"}),
    ("token", {"text": "春"}),
    ("token", {"text": "雨"}),
    ("result", {"text": "春雨"}),
]
POET = Service("http://web", "poet", "text", {}, "a")


@dataclass
class FakeWeb:
    """Answers with these events, once the gate is open. A picture where `kind` says so."""

    events: list[tuple[str, Any]] = field(default_factory=lambda: list(WHOLE))
    kind: str = "text"
    status: int = 200
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[Any] = field(default_factory=list)
    left: int = 0
    url: str = ""

    async def generate(self, request: Request) -> Response:
        self.asked.append(await request.json())
        if self.status != 200:
            return JSONResponse({"detail": "no"}, self.status)

        async def parts() -> AsyncIterator[str]:
            try:
                for name, data in self.events:
                    while name != "status" and not self.gate.is_set():
                        yield ": \n\n"
                        await asyncio.sleep(0.01)
                    yield f"event: {name}\ndata: {json.dumps(data)}\n\n"
            except asyncio.CancelledError:
                self.left += 1
                raise

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def models(self, _: Request) -> Response:
        return JSONResponse({"models": [{"name": "poet", "kind": self.kind}, {"name": "painter", "kind": "image"}]})


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    fake = FakeWeb()
    fake.gate.set()
    routes = [
        Route("/generate", fake.generate, methods=["POST"]),
        Route("/healthz", lambda _: JSONResponse({})),
        Route("/", fake.models),
    ]
    listener = listen("127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), lifespan="off", log_config=None))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    yield fake
    fake.gate.set()
    server.should_exit = True
    thread.join()
    listener.close()


@dataclass
class FakeDeployment:
    """Asleep at each second look; a kill opens the gate."""

    web: FakeWeb
    finished: int | None = None
    looks: int = 0
    kills: int = 0

    def asleep(self) -> bool:
        self.looks += 1
        return self.looks % 2 == 0

    def kill(self) -> bool:
        self.kills += 1
        self.web.gate.set()
        return True

    def timeline(self, asked_at: float) -> Timeline:
        assert asked_at > 1_700_000_000
        return Timeline({"imports": 1.5}, self.finished)


@pytest.fixture
def service(web: FakeWeb) -> Service:
    return find_service(web.url, {}, "poet")


def test_a_wake_up_is_waited_for_and_measured(web: FakeWeb, service: Service) -> None:
    deployment = FakeDeployment(web)
    found = Waker(service, deployment, asleep_seconds=60).wake()

    assert deployment.looks == 2
    assert web.asked == [{"model": "poet", "prompt": service.prompt, "stream": True}]
    assert (found.lost, found.doubled, found.killed, found.lefts) == (False, False, False, 0)
    assert found.answer.first_s > 0
    assert found.timeline.phases == {"imports": 1.5}


@pytest.mark.parametrize(
    ("events", "lost", "doubled"),
    [
        ([*WHOLE, WHOLE[-1]], False, True),
        ([WHOLE[1], *WHOLE], False, True),
        (WHOLE[:-1], True, False),
        ([("error", {"title": "Overloaded", "detail": "no more are taken"})], True, False),
        ([("progress", {"step": 1}), ("result", {"image": "…"})], False, False),
    ],
    ids=["two results", "a token twice", "broken off", "a problem", "a picture"],
)
def test_what_is_lost_and_what_came_twice(
    web: FakeWeb, service: Service, events: list[tuple[str, Any]], lost: bool, doubled: bool
) -> None:
    web.events = events
    found = Waker(service, FakeDeployment(web), asleep_seconds=60).wake()

    assert (found.lost, found.doubled) == (lost, doubled)


def test_a_status_of_an_error_is_lost(web: FakeWeb, service: Service) -> None:
    web.status = 503
    found = Waker(service, FakeDeployment(web), asleep_seconds=60).wake()

    assert found.lost
    assert found.answer.failure.startswith("status 503: ")


@pytest.mark.parametrize(("finished", "doubled"), [(None, False), (1, False), (3, False), (4, True)])
def test_more_generations_than_requests_are_doubled(finished: int | None, doubled: bool) -> None:
    assert Wake(Answer(1.0), Timeline({}, finished), killed=False, lefts=2).doubled is doubled


def test_what_wakes_is_killed_in_the_share_that_was_asked_for(web: FakeWeb, service: Service) -> None:
    deployment = FakeDeployment(web)
    waker = Waker(service, deployment, asleep_seconds=60, kills=0.5)
    killed = []
    for number in range(4):
        if number % 2:
            web.gate.clear()  # until it is killed
        killed.append(waker.wake().killed)

    assert killed == [False, True, False, True]
    assert deployment.kills == 2


def test_clients_that_leave_are_no_losses(web: FakeWeb, service: Service) -> None:
    web.gate.clear()
    waker = Waker(service, FakeDeployment(web), asleep_seconds=60, leavers=2)
    found: list[Wake] = []
    waking = threading.Thread(target=lambda: found.append(waker.wake()))
    waking.start()
    wait_until(lambda: web.left == 2, "both leave")
    web.gate.set()
    waking.join()

    assert (found[0].lost, found[0].doubled, found[0].lefts) == (False, False, 2)
    assert len(web.asked) == 3


def test_a_model_that_never_sleeps_is_told(web: FakeWeb, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = FakeDeployment(web)
    monkeypatch.setattr(deployment, "asleep", lambda: False)
    with pytest.raises(SystemExit, match="does not sleep within 0"):
        Waker(service, deployment, asleep_seconds=0).wake()


def test_a_model_that_web_has_not_is_told(web: FakeWeb) -> None:
    with pytest.raises(SystemExit, match="no model 'bard', but poet, painter"):
        find_service(web.url, {}, "bard")
    assert find_service(web.url, {}, None).model == "poet"
    assert find_service(web.url, {}, "painter").kind == "image"


def test_the_report_has_medians_the_99th_of_a_hundred_and_the_counts() -> None:
    wakes = [
        Wake(Answer(float(number)), Timeline({"imports": 1.0, "weights": number / 10}), False, 1)
        for number in (1, 2, 9)
    ]
    wakes.append(Wake(Answer(20.0), Timeline({"imports": 5.0}), killed=True, lefts=0))
    wakes.append(Wake(Answer(failure="status 503"), Timeline(), killed=True, lefts=0))
    lines = [line.split() for line in report(POET, wakes).splitlines()]

    assert lines[2:] == [
        ["imports", "1.00", "1.00", "3"],
        ["weights", "0.20", "0.90", "3"],
        ["request", "to", "first", "token", "2.00", "9.00", "3"],
        ["request", "to", "first", "token,", "with", "a", "kill", "20.00", "20.00", "1"],
        ["wake-ups", "5,", "killed", "2,", "left", "3,", "lost", "1,", "doubled", "0"],
    ]
    assert percentile(range(1, 201)) == 198


def test_it_is_a_command_of_scripts_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/bench", "wake", "--help"])
    with pytest.raises(SystemExit, match="0"):
        bench.main()


@pytest.mark.parametrize("kills", ["-0.1", "1.5"])
def test_a_share_is_from_0_to_1(kills: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        wake.main(["--url", "http://127.0.0.1:9", "--kills", kills])
