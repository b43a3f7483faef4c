"""What is traced, by whom it is decided, and what others are told of it."""

from __future__ import annotations

import threading
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.support.waiting import SECONDS
from tests.support.wire.spans import Spans, id_of, recorded, trace_of
from wire.request_context import RequestContext, RequestContextMiddleware
from wire.telemetry.instrumentation import TracedRequests, traced_transport
from wire.telemetry.tracing import (
    Tracing,
    is_sampled,
    link_to,
    passed_on,
    start_tracing,
    stop_tracing,
    trace_id,
    tracing,
    work,
)

TRACE, PARENT = "a" * 32, "b" * 16
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


async def served(headers: dict[str, str] | None = None, path: str = "/poems?key=secret") -> dict[str, Any]:
    """What a server that calls another one has seen."""
    calls: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        return httpx2.Response(200)

    client = httpx2.AsyncClient(transport=traced_transport(httpx2.MockTransport(answer)))

    async def poem(request: Request) -> JSONResponse:
        passed = RequestContext.of(request.scope).headers
        await client.post("http://model.test/generate", headers=passed)
        return JSONResponse({"query": request.url.query, "passed_on": passed, "sampled": is_sampled()})

    routes = [Route("/poems", poem), Route("/healthz", poem)]
    app = TracedRequests(RequestContextMiddleware(Starlette(routes=routes)), ["/healthz"])
    async with client, httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://web.test") as asking:
        response = await asking.get(path, headers=headers or {})
    return {**response.json(), "called_with": calls[0].headers.get("traceparent"), "calls": calls}


async def test_a_request_and_its_calls_are_one_trace(spans: Spans) -> None:
    seen = await served()
    assert spans.names == ["POST", "GET"]
    call, request = spans
    assert call.parent is not None
    assert call.parent.span_id == id_of(request)
    assert seen["called_with"].startswith(f"00-{trace_of(request)}-{id_of(call):016x}-")
    assert len(seen["calls"][0].headers.get_list("traceparent")) == 1
    assert seen["passed_on"]["traceparent"].startswith(f"00-{trace_of(request)}-{id_of(request):016x}-")


async def test_a_trace_that_came_goes_on(spans: Spans) -> None:
    await served({"traceparent": SAMPLED})
    assert spans.traces == {TRACE}
    *_, request = spans
    assert request.parent is not None
    assert request.parent.span_id == int(PARENT, 16)


async def test_no_query_is_in_a_span_and_the_application_has_it(spans: Spans) -> None:
    seen = await served()
    assert seen["query"] == "key=secret"
    assert "secret" not in spans.everything
    assert "/poems" in spans.everything


async def test_a_path_that_is_probed_has_no_span(spans: Spans) -> None:
    seen = await served(path="/healthz")
    assert list(spans) == []
    assert not seen["sampled"]


async def test_what_is_not_sampled_is_not_sampled_by_others_either() -> None:
    with recorded(ALWAYS_OFF) as spans:
        seen = await served()
    assert list(spans) == []
    assert not seen["sampled"]
    assert seen["called_with"] == seen["passed_on"]["traceparent"]
    assert seen["called_with"].endswith("-00")


async def test_the_caller_decides_where_the_sampler_goes_by_it() -> None:
    with recorded(ParentBased(TraceIdRatioBased(1.0))) as spans:
        assert (await served({"traceparent": UNSAMPLED}))["called_with"] == UNSAMPLED
        assert list(spans) == []
        await served({"traceparent": SAMPLED})
        assert len(list(spans)) == 2


async def test_a_share_is_that_share_and_whole_or_not_at_all() -> None:
    with recorded(ParentBased(TraceIdRatioBased(0.5))) as spans:
        sampled = [(await served())["sampled"] for _ in range(60)]
    assert 10 < sum(sampled) < 50  # it is not squared, as where it is asked twice
    assert len(list(spans)) == 2 * sum(sampled)


async def test_without_a_collector_trace_headers_are_passed_on_as_they_came() -> None:
    assert tracing() is None
    seen = await served({"traceparent": SAMPLED, "tracestate": "x=1"})
    assert seen["called_with"] == SAMPLED
    assert seen["passed_on"] == {"X-Request-Id": seen["passed_on"]["X-Request-Id"]} | {
        "traceparent": SAMPLED,
        "tracestate": "x=1",
    }
    assert (await served())["called_with"] is None


def test_work_goes_on_with_the_trace_and_links_where_it_is_done_again(spans: Spans) -> None:
    with work("first", {}):
        headers = passed_on({})
    with work("again", headers, {"shangcai.job_id": "j1"}, linked=True):
        pass
    first, again = spans
    assert trace_of(again) == trace_of(first)
    assert again.parent is not None
    assert again.parent.span_id == id_of(first)
    assert [link.context.span_id for link in again.links] == [id_of(first)]
    assert spans.with_attribute("shangcai.job_id", "j1") == [again]
    assert not first.links


def test_a_span_links_to_an_earlier_one(spans: Spans) -> None:
    with work("first", {}):
        headers = passed_on({})
    with work("redelivered", {}):
        link_to(headers)
        link_to({})
    first, redelivered = spans
    assert [link.context.span_id for link in redelivered.links] == [id_of(first)]


def test_work_that_was_not_sampled_is_not(spans: Spans) -> None:
    with recorded(ParentBased(ALWAYS_OFF)) as none, work("job", {"traceparent": UNSAMPLED}):
        assert not is_sampled()
    assert list(none) == []


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({"traceparent": SAMPLED}, TRACE),
        ({}, None),
        ({"traceparent": "00-xyz"}, None),
        ({"traceparent": f"00-{'Z' * 32}-{PARENT}-01"}, None),
    ],
)
def test_the_id_of_a_trace_is_read(given: dict[str, str], known: str | None) -> None:
    assert trace_id(given) == known


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_traced_unless_asked_for(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start_tracing("shangcai-test")
    assert tracing() is None


def test_a_collector_is_traced_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    start_tracing("shangcai-test")
    try:
        used = tracing()
        assert used is not None
        assert used.provider.resource.attributes["service.name"] == "shangcai-test"
    finally:
        stop_tracing()
    assert tracing() is None


def test_a_collector_that_is_down_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exporter tries again and again, with pauses."""
    closing, closed = threading.Event(), threading.Event()

    class Provider(TracerProvider):
        def shutdown(self) -> None:
            closing.set()
            closed.wait(SECONDS)

    monkeypatch.setattr("wire.telemetry.tracing.CLOSE_SECONDS", 0.01)
    Tracing(Provider(shutdown_on_exit=False)).close()
    assert closing.is_set()
    closed.set()


async def test_a_method_that_a_client_made_up_names_no_span(spans: Spans) -> None:
    app = TracedRequests(RequestContextMiddleware(Starlette()))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://web.test") as asking:
        await asking.request("MAKEBELIEVE", "/poems")
    assert spans.names == ["_OTHER"]
