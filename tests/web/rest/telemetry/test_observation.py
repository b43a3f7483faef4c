"""What is counted of a generation, and how its time is divided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from web import metrics


class Counted:
    """What a metric of web has grown by since the test began."""

    def __init__(self) -> None:
        self._before = self._samples()

    def __call__(self, name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        return self._samples().get(key, 0.0) - self._before.get(key, 0.0)

    def phases(self, model: str = "poet") -> list[str]:
        """The phases that were observed."""
        names = {
            dict(labels)["phase"] for (name, labels) in self._samples() if name == "shangcai_web_phase_seconds_count"
        }
        name = "shangcai_web_phase_seconds_count"
        return sorted(phase for phase in names if self(name, model=model, phase=phase))

    def _samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in REGISTRY.collect()
            if family.name.startswith("shangcai_web_")
            for sample in family.samples
        }


@pytest.fixture
def counted() -> Counted:
    return Counted()


async def test_a_text_counts_its_tokens_and_its_phases(
    web: Callable[..., httpx2.AsyncClient], counted: Counted
) -> None:
    async with web() as client:
        answer = await client.post("/generate", json={"prompt": "雨"})
    assert answer.status_code == 200
    assert counted("shangcai_web_prompt_tokens_total", model="poet") == 7
    assert counted("shangcai_web_generation_tokens_total", model="poet") == 3
    assert counted("shangcai_web_e2e_request_latency_seconds_count", model="poet") == 1
    assert counted("shangcai_web_time_to_first_token_seconds_count", model="poet") == 1
    assert counted("shangcai_web_time_per_output_token_seconds_count", model="poet") == 1
    assert counted.phases() == ["accept", "connect", "decode", "deliver", "limit", "prefill", "queue"]
    seconds = sum(counted("shangcai_web_phase_seconds_sum", model="poet", phase=phase) for phase in counted.phases())
    assert seconds == pytest.approx(counted("shangcai_web_e2e_request_latency_seconds_sum", model="poet"), rel=0.05)


async def test_pictures_are_denoised(web: Callable[..., httpx2.AsyncClient], counted: Counted) -> None:
    async with web() as client:
        answer = await client.post("/generate", json={"prompt": "猫", "model": "painter", "n": 2, "stream": True})
    assert answer.status_code == 200
    assert counted("shangcai_web_pictures_total", model="painter") == 2
    assert counted("shangcai_web_generation_tokens_total", model="painter") == 0
    assert "denoise" in counted.phases("painter")
    assert "decode" not in counted.phases("painter")


async def test_what_failed_is_no_whole_generation(web: Callable[..., httpx2.AsyncClient], counted: Counted) -> None:
    async with web(lambda _: httpx2.Response(400, json={"error": {"message": "no"}})) as client:
        answer = await client.post("/generate", json={"prompt": "雨"})
    assert answer.status_code == 400
    assert counted("shangcai_web_e2e_request_latency_seconds_count", model="poet") == 0
    assert counted("shangcai_web_time_to_first_token_seconds_count", model="poet") == 0
    assert counted.phases() == ["accept", "connect", "limit"]


async def test_one_that_is_asked_again_has_a_phase_of_that(
    web: Callable[..., httpx2.AsyncClient],
    stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
    counted: Counted,
) -> None:
    answers: Iterator[Any] = iter([httpx2.Response(502), sse_answer(stream("春"))])
    async with web(lambda _: next(answers)) as client:
        answer = await client.post("/generate", json={"prompt": "雨"})
    assert answer.status_code == 200
    assert counted("shangcai_web_request_retries_total", model="poet") == 1
    assert "retry" in counted.phases()


async def test_one_that_waits_for_its_turn_has_a_phase_of_that(
    web: Callable[..., httpx2.AsyncClient],
    stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
    counted: Counted,
) -> None:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        return sse_answer(stream("春"))

    async with web(answer, max_in_flight=1) as client:
        both = await asyncio.gather(*(client.post("/generate", json={"prompt": "雨"}) for _ in range(2)))
    assert [one.status_code for one in both] == [200, 200]
    assert counted("shangcai_web_phase_seconds_count", model="poet", phase="limit") == 2


def test_every_metric_is_of_one_scheme() -> None:
    names = [metric._name for metric in vars(metrics).values() if hasattr(metric, "_documentation")]
    assert len(names) > 30
    assert all(name.startswith("shangcai_web_") for name in names)
