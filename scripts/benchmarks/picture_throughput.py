"""Throughput of pictures: the painter's, beside raw calls of its pipeline in the same minute."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import uvloop

from scripts.benchmarks import slot_release
from scripts.benchmarks.contenders import on_own_thread
from scripts.benchmarks.request_shapes import RequestShape
from scripts.benchmarks.servers import Server, start_predictor, start_web
from scripts.loopback_http import async_client, get
from scripts.progress import tracked

TOGETHER = 4
ROUNDS = 15
PREVIEWS = 4
LONG = 200
IMAGES = "/openai/v1/images/generations"

Draw = Callable[[httpx2.AsyncClient, int], Awaitable[None]]
"""Draw picture number i."""


def measure(model: Path) -> None:
    raw = on_own_thread(lambda: _Pipeline(model))
    with start_predictor(model, "auto", TOGETHER) as predictor, start_web(predictor.url, "image") as web:
        floor = f"pipeline, a batch of {TOGETHER}"
        contenders: dict[str, Callable[[], float]] = {
            floor: lambda: on_own_thread(lambda: raw.speed(TOGETHER)),
            "pipeline, one by one": lambda: on_own_thread(lambda: raw.speed(1)),
            f"predictor, {TOGETHER} at once": lambda: _speed(predictor, _draw_by_images, TOGETHER),
            "predictor, one by one": lambda: _speed(predictor, _draw_by_images, 1),
            f"web, {TOGETHER} at once": lambda: _speed(web, _draw_by_generate, TOGETHER),
            "streamed": lambda: _speed(predictor, _draw_streamed(0), TOGETHER),
            "with previews": lambda: _speed(predictor, _draw_streamed(PREVIEWS), TOGETHER),
        }
        # They take turns, because the machine's speed varies from minute to minute.
        rounds = [
            {contender: speed() for contender, speed in contenders.items()}
            for _ in tracked(range(1 + ROUNDS), "rounds")
        ][1:]
        slots = _slots(predictor)

    def ratio(contender: str, to: str) -> float:
        return statistics.median(one[contender] / one[to] for one in rounds)

    print(f"\n{model.name}, {slots} slots, medians of {ROUNDS}; pictures/s, and the ratio to the pipeline's batch")
    for contender in list(contenders)[:5]:
        speed = statistics.median(one[contender] for one in rounds)
        print(f"{contender:<24}{speed:8.2f}{ratio(contender, floor):8.2f}")
    gain = ratio(f"predictor, {TOGETHER} at once", "predictor, one by one")
    print(f"at once, of one by one: {gain:.2f}; the pipeline's batch: {ratio(floor, 'pipeline, one by one'):.2f}")
    print(f"{PREVIEWS} previews of each: {100 * (1 - ratio('with previews', 'streamed')):.1f} % of the pictures/s")
    with start_predictor(model, "auto", 1) as predictor, start_web(predictor.url, "image") as web:
        slot_release.report({"predictor": (predictor, _IMAGES_SHAPE), "web": (web, _GENERATE_SHAPE)}, LONG, "a step")


class _Pipeline:
    """The pipeline itself, called as the server calls it."""

    def __init__(self, model: Path) -> None:
        from diffusers import DiffusionPipeline

        from predictor.pictures.pipeline_loading import load_pipeline

        self._settings = load_pipeline(str(model), "auto", "auto", lambda _: None)
        self._pipe: Any = DiffusionPipeline.from_pretrained(model, use_safetensors=True)
        self._pipe.set_progress_bar_config(disable=True)

    def speed(self, count: int) -> float:
        """Pictures a second, `count` in a batch."""
        self._draw(count)  # a thread's first run makes its pool of threads, and fills the processor's caches
        begun = time.perf_counter()
        self._draw(count)
        return count / (time.perf_counter() - begun)

    def _draw(self, count: int) -> None:
        import torch

        self._pipe(
            [_prompt(number) for number in range(count)],
            num_inference_steps=self._settings.steps,
            guidance_scale=self._settings.guidance,
            generator=[torch.Generator("cpu").manual_seed(number) for number in range(count)],
        )


def _speed(server: Server, draw: Draw, count: int) -> float:
    """Pictures a second, `count` at once."""

    async def together() -> float:
        async with async_client(server.url) as client:
            await draw(client, 0)  # the contender before has filled the processor's caches
            begun = time.perf_counter()
            await asyncio.gather(*(draw(client, number) for number in range(count)))
            return count / (time.perf_counter() - begun)

    return uvloop.run(together())


def _slots(server: Server) -> int:
    metrics = get(server.url + "/metrics").text
    [number] = re.findall(r"^shangcai_slots (.+)$", metrics, re.MULTILINE)
    return int(float(number))


def _prompt(number: int) -> str:
    return "画一只" + "猫狗鸟马牛羊猪鸡"[number]


async def _draw_by_images(client: httpx2.AsyncClient, number: int) -> None:
    answer = await client.post(IMAGES, json={"model": "m", "prompt": _prompt(number), "seed": number})
    assert answer.raise_for_status().json()["data"][0]["b64_json"]


async def _draw_by_generate(client: httpx2.AsyncClient, number: int) -> None:
    body = {"prompt": _prompt(number), "seed": number}
    answer = await client.post("/generate", json=body, headers={"Accept": "image/png"})
    assert answer.raise_for_status().content.startswith(b"\x89PNG")


def _draw_streamed(previews: int) -> Draw:
    async def draw(client: httpx2.AsyncClient, number: int) -> None:
        body = {"model": "m", "prompt": _prompt(number), "seed": number, "stream": True, "partial_images": previews}
        answer = await client.post(IMAGES, json=body)
        assert answer.raise_for_status().text.count("partial_image_index") == previews

    return draw


def _images_body(number: int, steps: int, stream: bool) -> dict[str, Any]:
    return {"model": "m", "prompt": _prompt(number), "steps": steps, "stream": stream, "progress": True}


def _generate_body(number: int, steps: int, stream: bool) -> dict[str, Any]:
    return {"prompt": _prompt(number), "steps": steps, "stream": stream}


_IMAGES_SHAPE = RequestShape(IMAGES, _images_body, '"image_generation.started"', '"image_generation.progress"')
_GENERATE_SHAPE = RequestShape("/generate", _generate_body, '"state":"running"', '"step":')
