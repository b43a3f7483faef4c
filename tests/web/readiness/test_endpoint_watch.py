"""The models' endpoints, watched at an API server that follows a script, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from tests.support.waiting import eventually
from tests.support.waking import LIVE, REQUEST, Events, Front, Model, states, status, until_status
from web.callers import service_account
from web.jobs.background_loops import BackgroundLoops
from web.readiness import endpoint_watch as endpoint_watch_module
from web.readiness.endpoint_states import EndpointSlice, EndpointStates, knative_services
from web.readiness.endpoint_watch import EndpointWatch, endpoint_watch

Serve = Callable[[ASGIApp], Awaitable[str]]
Watched = Callable[..., Awaitable[EndpointStates]]

PATH = "/apis/discovery.k8s.io/v1/namespaces/shangcai/endpointslices"
READY = {"ready": True, "serving": True, "terminating": False}
STARTING = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}


def slice_of(*conditions: dict[str, Any], name: str = "text-1", service: str = "text-predictor") -> dict[str, Any]:
    """As Kubernetes makes it of the private Service of a Knative revision."""
    labels = {
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": f"{name}-private",
        "networking.internal.knative.dev/serviceType": "Private",
        "serving.knative.dev/service": service,
    }
    return {
        "metadata": {"name": name, "namespace": "shangcai", "resourceVersion": "1", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": each} for each in conditions] or None,
        "ports": None,
    }


class ApiServer:
    """Lists `slices`, and sends what is put into `events`; None ends a watch."""

    def __init__(self) -> None:
        self.slices: list[dict[str, Any]] = []
        self.version = 10
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.lists: list[Request] = []
        self.watches: list[Request] = []
        self.refusal: Response | None = None
        self.gone = False
        self.app = Starlette(routes=[Route(PATH, self._serve)])

    def send(self, kind: str, document: dict[str, Any]) -> None:
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        self.events.put_nowait({"type": kind, "object": document})

    async def _serve(self, request: Request) -> Response:
        watch = "watch" in request.query_params
        (self.watches if watch else self.lists).append(request)
        if self.refusal is not None:
            return self.refusal
        if watch and self.gone:
            self.gone = False
            return Response(status_code=410)
        if watch:
            return StreamingResponse(self._lines(), media_type="application/json")
        document = {"metadata": {"resourceVersion": str(self.version)}, "items": self.slices}
        return Response(json.dumps(document), media_type="application/json")

    async def _lines(self) -> AsyncGenerator[bytes]:
        while (event := await self.events.get()) is not None:
            yield json.dumps(event).encode() + b"\n"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAUSE_SECONDS", "FIRST_PAUSE_SECONDS", "MOST_PAUSE_SECONDS"):
        monkeypatch.setattr(endpoint_watch_module, name, 0.01)


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the pod's credentials."""
    (tmp_path / "token").write_text("first\n")
    monkeypatch.setattr(service_account, "ACCOUNT", tmp_path)
    return tmp_path


@pytest.fixture
async def watched(api: ApiServer, serve: Serve, account: Path) -> AsyncGenerator[Watched]:
    """Starts the watch of the text model's endpoints."""
    loops = BackgroundLoops()
    running = []

    async def start(notify: Callable[[str], None] = lambda _: None) -> EndpointStates:
        states = EndpointStates({"poet": "text-predictor", "painter": "image-predictor"}, notify)
        watch = EndpointWatch(states, "shangcai", await serve(api.app))
        running.append(loops.start("the watch", watch.turn))
        return states

    yield start
    await loops.close(*running)


def said(states: EndpointStates, model: str = "poet") -> str | None:
    report = states.of(model)
    return None if report is None else report.state


# What endpoints say


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([], None),
        ([slice_of(service="another-predictor")], None),
        ([slice_of()], "asleep"),
        ([slice_of(LEAVING)], "asleep"),
        ([slice_of(STARTING)], "waking"),
        ([slice_of(LEAVING, STARTING)], "waking"),
        ([slice_of(READY)], "ready"),
        ([slice_of(STARTING, READY)], "ready"),
        ([slice_of({})], "ready"),  # what is not known counts as ready
        ([slice_of(name="text-1"), slice_of(STARTING, name="text-2")], "waking"),  # of two revisions
        ([slice_of(READY, name="text-1"), slice_of(STARTING, name="text-2")], "ready"),
    ],
)
def test_what_endpoints_say_of_a_model(slices: list[dict[str, Any]], expected: str | None) -> None:
    states = EndpointStates({"poet": "text-predictor"})
    states.replace([EndpointSlice.model_validate(each) for each in slices])
    assert said(states) == expected


def test_which_services_are_watched() -> None:
    urls = {
        "poet": "http://text-predictor.shangcai.svc.cluster.local",
        "painter": "http://image-predictor.shangcai.svc:80/path",
        "elsewhere": "http://text-predictor.other.svc.cluster.local",
        "outside": "https://models.example.com",
        "unknown": None,
    }
    assert knative_services(urls) == ("shangcai", {"poet": "text-predictor", "painter": "image-predictor"})
    assert knative_services({"outside": "https://models.example.com", "unknown": None}) == ("", {})


def test_outside_of_a_pod_nothing_is_watched(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert endpoint_watch({"poet": "http://text-predictor.shangcai.svc"}) is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert endpoint_watch({"poet": "http://127.0.0.1:8081"}) is None
    assert caplog.text.count("no EndpointSlices are watched") == 2
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    watch = endpoint_watch({"poet": "http://text-predictor.shangcai.svc"})
    assert watch is not None
    assert watch.states.services == {"poet": "text-predictor"}


# The watch


async def test_a_list_and_what_changes_after_it(api: ApiServer, watched: Watched) -> None:
    api.slices = [slice_of()]
    changed: list[str] = []
    states = await watched(changed.append)
    await eventually(lambda: said(states) == "asleep")
    assert said(states, "painter") is None
    for conditions, expected in (((STARTING,), "waking"), ((READY,), "ready"), ((LEAVING,), "asleep")):
        api.send("MODIFIED", slice_of(*conditions))
        await eventually(lambda expected=expected: said(states) == expected)  # type: ignore[misc]
    api.send("ADDED", slice_of(STARTING, name="text-2"))
    await eventually(lambda: said(states) == "waking")
    api.send("DELETED", slice_of(STARTING, name="text-2"))
    await eventually(lambda: said(states) == "asleep")
    assert changed == ["poet"] * 6
    [request] = api.lists
    assert request.query_params["labelSelector"] == (
        "networking.internal.knative.dev/serviceType=Private,"
        "serving.knative.dev/service in (image-predictor,text-predictor)"
    )
    assert api.watches[0].query_params["resourceVersion"] == "10"


async def test_a_watch_that_ends_goes_on_where_it_was(api: ApiServer, watched: Watched, account: Path) -> None:
    api.slices = [slice_of()]
    states = await watched()
    api.send("MODIFIED", slice_of(READY))
    await eventually(lambda: said(states) == "ready")
    api.send("BOOKMARK", {"kind": "EndpointSlice", "metadata": {"creationTimestamp": None}})
    (account / "token").write_text("second\n")
    api.events.put_nowait(None)
    await eventually(lambda: len(api.watches) == 2)
    assert said(states) == "ready"
    assert (len(api.lists), api.watches[1].query_params["resourceVersion"]) == (1, "12")
    tokens = [request.headers["authorization"] for request in api.watches]
    assert tokens == ["Bearer first", "Bearer second"]  # it is replaced before it expires


@pytest.mark.parametrize("how", ["status", "event"])
async def test_a_watch_from_too_long_ago_begins_with_a_list(api: ApiServer, watched: Watched, how: str) -> None:
    api.slices = [slice_of()]
    states = await watched()
    await eventually(lambda: api.watches)
    api.slices = [slice_of(READY)]
    if how == "status":
        api.gone = True
        api.events.put_nowait(None)
    else:
        api.events.put_nowait({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
    await eventually(lambda: said(states) == "ready")
    assert len(api.lists) == 2


@pytest.mark.parametrize("answer", [Response(status_code=403), Response(b"{"), Response(b"[]"), Response(b"{}")])
async def test_what_fails_is_said_once_and_tried_again(
    api: ApiServer, watched: Watched, caplog: pytest.LogCaptureFixture, answer: Response
) -> None:
    caplog.set_level(logging.INFO)
    api.slices = [slice_of(READY)]
    states = await watched()
    await eventually(lambda: said(states) == "ready" and api.watches)
    api.refusal = answer
    api.events.put_nowait({"type": "ERROR", "object": {"code": 500, "reason": "InternalError"}})
    await eventually(lambda: said(states) is None)  # what is not watched is not claimed
    seen = len(api.lists)
    await eventually(lambda: len(api.lists) >= seen + 3)
    assert caplog.text.count("the EndpointSlices cannot be watched") == 1
    api.refusal = None
    await eventually(lambda: said(states) == "ready")
    assert "the EndpointSlices are watched again" in caplog.text


@pytest.mark.parametrize("line", [b"x" * 2_000 + b"\n", b"[]\n", b'{"type": "ADDED", "object": []}\n', b"{}\n", b"{"])
async def test_an_event_that_is_none_is_a_failure(
    api: ApiServer,
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    line: bytes,
) -> None:
    api.slices = [slice_of(READY)]

    async def lines() -> AsyncGenerator[bytes]:
        yield line

    monkeypatch.setattr(api, "_lines", lines)
    await watched()
    await eventually(lambda: "the EndpointSlices cannot be watched" in caplog.text)
    assert "has failed and is tried again" not in caplog.text  # such a failure ends no process


async def test_the_token_goes_nowhere_else(api: ApiServer, watched: Watched, serve: Serve) -> None:
    elsewhere: list[Request] = []

    async def other(request: Request) -> Response:
        elsewhere.append(request)
        return Response(status_code=200)

    url = await serve(Starlette(routes=[Route("/{path:path}", other)]))
    api.refusal = RedirectResponse(f"{url}/stolen")
    await watched()
    await eventually(lambda: len(api.lists) >= 2)
    assert elsewhere == []


# What clients see of it


@pytest.fixture
def endpoints(
    api: ApiServer, serve: Serve, account: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Settings of a web that watches the poet's."""

    async def settings() -> dict[str, Any]:
        url = await serve(api.app)
        monkeypatch.setattr(endpoint_watch_module, "api_server", lambda: url)
        models = {"poet": "http://poet.shangcai.svc.cluster.local", "painter": {"url": "http://painter.test"}}
        return {"endpoint_slices": True, "models": models}

    return settings


@pytest.mark.usefixtures("first_status")
async def test_a_model_that_was_evicted_is_waking_at_once(
    front: Front, model: Model, events: Events, api: ApiServer, endpoints: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    """It has answered a moment ago, so that its idle window says nothing."""
    api.slices = [slice_of(READY, service="poet")]
    client = await front(**await endpoints())
    await until_status(client, state="ready")
    model.awake.set()
    assert (await client.post("/generate", json=REQUEST)).status_code == 200
    model.awake.clear()
    model.asleep = model.silent
    api.send("MODIFIED", slice_of(service="poet"))
    await until_status(client, state="asleep")
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await until_status(client, state="waking")
    api.send("MODIFIED", slice_of(STARTING, service="poet"))
    model.awake.set()
    found = states(events((await waiting).text))
    assert found[:2] == ["asleep", "waking"]
    assert found[-2:] == ["queued", "running"]
    api.send("MODIFIED", slice_of(READY, service="poet"))
    assert (await until_status(client, state="ready"))["expected_seconds"] > 0
    assert (await status(client, "painter"))["state"] == "unknown"


@pytest.mark.usefixtures("first_status")
async def test_silence_of_a_model_with_endpoints_is_no_wake_up(
    front: Front, model: Model, events: Events, api: ApiServer, endpoints: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    """All slots are taken by requests that this replica knows nothing of."""
    api.slices = [slice_of(READY, service="poet")]
    client = await front(**await endpoints())
    await until_status(client, state="ready")
    model.asleep = model.silent
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await eventually(lambda: model.posts == 1)
    await asyncio.sleep(0.3)  # longer than silence has a meaning without
    assert (await status(client))["state"] == "ready"
    model.awake.set()
    assert states(events((await waiting).text)) == ["pending", "queued", "running"]


async def test_a_model_that_somebody_else_wakes(
    front: Front, api: ApiServer, endpoints: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    api.slices = [slice_of(service="poet")]
    client: httpx2.AsyncClient = await front(**await endpoints())
    await until_status(client, state="asleep")
    api.send("MODIFIED", slice_of(STARTING, service="poet"))
    assert (await until_status(client, state="waking"))["seconds"] >= 0
    api.send("MODIFIED", slice_of(READY, service="poet"))
    await until_status(client, state="ready")
