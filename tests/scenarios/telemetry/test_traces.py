"""Where the time of a request went is found by its id, in the traces of both servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import SECONDS, eventually
from tests.support.web.served_web import listening
from tests.support.wire.spans import Spans, id_of, seconds_of, trace_of
from web.app import create_app
from web.settings import Settings

SLOW_SECONDS = 1.0


@asynccontextmanager
async def asking(predictor: str, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a web in front of the predictor."""
    models = {"models": {"poet": predictor}, "grace_seconds": 1}
    app = create_app(Settings.model_validate(models | settings))
    async with listening(app) as web, httpx2.AsyncClient(base_url=web, timeout=SECONDS, trust_env=False) as client:
        yield client


def request_of(spans: Spans, request_id: str) -> ReadableSpan:
    """Web's span of the request with this id."""
    return min(spans.with_attribute("shangcai.request_id", request_id), key=lambda span: span.start_time or 0)


def in_trace(spans: Spans, span: ReadableSpan) -> list[ReadableSpan]:
    return [one for one in spans if trace_of(one) == trace_of(span)]


def generations(spans: Spans) -> list[ReadableSpan]:
    """Those of web and of the predictor, the longer one first."""
    return sorted(spans.named("generate poet"), key=seconds_of, reverse=True)


def assert_adds_up(spans: Spans, generation: ReadableSpan) -> dict[str, float]:
    """Its phases take its time; the seconds of each."""
    phases = {span.name: seconds_of(span) for span in spans.under(generation)}
    assert sum(phases.values()) == pytest.approx(seconds_of(generation), rel=0.05)
    return phases


async def test_a_slow_request_is_found_by_its_id(predictor: str, engine: ScriptedEngine, spans: Spans) -> None:
    gate = asyncio.Event()
    engine.enqueue("春", gate, "天")
    async with asking(predictor) as client:
        asyncio.get_running_loop().call_later(SLOW_SECONDS, gate.set)
        begun = time.perf_counter()
        answer = await client.post("/generate", json={"prompt": "雨", "stream": True}, headers={"X-Request-Id": "slow"})
        took = time.perf_counter() - begun
        await eventually(lambda: len(generations(spans)) == 2)
    assert answer.status_code == 200
    request = request_of(spans, "slow")
    assert (request.attributes or {})["shangcai.caller"] == "default"
    assert request.name == "POST /generate"
    assert seconds_of(request) == pytest.approx(took, rel=0.2)
    assert {span.name for span in in_trace(spans, request)} >= {"generate poet", "POST", "decode"}
    for generation in generations(spans):
        assert trace_of(generation) == trace_of(request)
        phases = assert_adds_up(spans, generation)
        assert max(phases, key=phases.__getitem__) == "decode"
        assert phases["decode"] >= 0.9 * SLOW_SECONDS
    of_web, of_predictor = generations(spans)
    assert of_web in spans.under(request)
    assert seconds_of(of_web) == pytest.approx(seconds_of(request), rel=0.05)
    assert (of_predictor.attributes or {})["shangcai.completion_tokens"] == 2


async def test_a_text_that_nobody_watches_has_the_same_phases(
    predictor: str, engine: ScriptedEngine, spans: Spans
) -> None:
    engine.enqueue("春", "天", queue_s=0.0)
    async with asking(predictor) as client:
        answer = await client.post("/generate", json={"prompt": "雨"}, headers={"X-Request-Id": "whole"})
        await eventually(lambda: len(generations(spans)) == 2)
    assert answer.status_code == 200
    assert {trace_of(span) for span in generations(spans)} == {trace_of(request_of(spans, "whole"))}


async def test_a_job_is_in_the_trace_of_the_request_that_made_it(
    predictor: str, engine: ScriptedEngine, spans: Spans
) -> None:
    engine.enqueue("春", "天")
    async with asking(predictor) as client:
        answer = await client.post(
            "/generate", json={"prompt": "雨"}, headers={"X-Request-Id": "made", "Prefer": "respond-async"}
        )
        job = answer.json()["id"]
        await eventually(lambda: bool(spans.named("job poet")))
    request = request_of(spans, "made")
    [run] = spans.named("job poet")
    assert trace_of(run) == trace_of(request)
    assert (run.attributes or {})["shangcai.job_id"] == job
    assert not run.links
    assert any(span in spans.under(run) for span in generations(spans))


async def test_an_event_is_in_the_trace_of_its_job_and_its_redelivery_links_to_the_first(
    predictor: str, engine: ScriptedEngine, spans: Spans
) -> None:
    engine.enqueue("春", "天")
    async with asking(predictor, dispatch="events", k_sink=predictor) as client:
        answer = await client.post("/generate", json={"prompt": "雨"}, headers={"X-Request-Id": "event"})
    assert answer.status_code == 200
    request = request_of(spans, "event")
    [delivery] = spans.named("event poet")
    assert trace_of(delivery) == trace_of(request)
    event = {
        "ce-id": "e1",
        "ce-source": "https://app.example",
        "ce-specversion": "1.0",
        "ce-type": "ai.shangcai.generation.requested.v1",
        "content-type": "application/json",
        "ce-traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    }
    engine.enqueue("秋", "天")
    async with httpx2.AsyncClient(timeout=SECONDS, trust_env=False) as broker:
        first = await broker.post(predictor, json={"prompt": "月"}, headers=event)
        again = await broker.post(predictor, json={"prompt": "月"}, headers=event)
    assert first.status_code == again.status_code == 200
    _, delivered, redelivered = spans.named("event poet")
    assert trace_of(delivered) == trace_of(redelivered) == "a" * 32
    assert not delivered.links
    assert [link.context.span_id for link in redelivered.links] == [id_of(delivered)]


async def test_no_prompt_and_no_answer_is_in_a_span(predictor: str, engine: ScriptedEngine, spans: Spans) -> None:
    engine.enqueue("answer-of-the-model")
    async with asking(predictor) as client:
        await client.post("/generate?token=query-secret", json={"prompt": "prompt-of-the-client"})
    for secret in ("answer-of-the-model", "prompt-of-the-client", "query-secret"):
        assert secret not in spans.everything
    assert "gen_ai" not in spans.everything


async def test_the_conventions_of_generative_ai_are_for_whoever_opts_in(
    predictor: str, engine: ScriptedEngine, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,gen_ai_latest_experimental")
    engine.enqueue("春", "天")
    engine.enqueue("秋")
    async with asking(predictor) as client:
        messages = [{"role": "user", "content": "prompt-of-the-client"}]
        await client.post("/generate", json={"messages": messages, "max_tokens": 9, "seed": 7, "temperature": 0.5})
        [chat] = spans.named("chat poet")
        assert "prompt-of-the-client" not in spans.everything
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
        await client.post("/generate", json={"prompt": "prompt-of-the-client"})
    attributes = dict(chat.attributes or {})
    assert {name: value for name, value in attributes.items() if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "shangcai",
        "gen_ai.request.model": "poet",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.response.id": attributes["gen_ai.response.id"],
        "gen_ai.response.model": "poet",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    }
    [completion] = spans.named("text_completion poet")
    assert "prompt-of-the-client" in str((completion.attributes or {})["gen_ai.input.messages"])
    assert "秋" in str((completion.attributes or {})["gen_ai.output.messages"])
