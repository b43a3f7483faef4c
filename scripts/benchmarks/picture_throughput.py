"""What scripts/bench measures of pictures: the painter's, beside raw calls of its pipeline from the same minute."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import uvloop

from scripts.benchmarks.contenders import PLAIN, Server, Shape, in_passing, predictor, web
from scripts.benchmarks.overhead import report_leaving

TOGETHER = 4
ROUNDS = 15
PREVIEWS = 4
LONG = 200
IMAGES = "/openai/v1/images/generations"

Draw = Callable[[httpx.AsyncClient, int], Awaitable[None]]
"""One picture, by its number."""


def measure(model: Path) -> None:
    raw = in_passing(lambda: _Raw(model))
    with predictor(model, "auto", TOGETHER) as served, web(served.url, "image") as front:
        floor = f"pipeline, a batch of {TOGETHER}"
        sides: dict[str, Callable[[], float]] = {
            floor: lambda: in_passing(lambda: raw.speed(TOGETHER)),
            "pipeline, one by one": lambda: in_passing(lambda: raw.speed(1)),
            f"predictor, {TOGETHER} at once": lambda: _speed(served, _painted, TOGETHER),
            "predictor, one by one": lambda: _speed(served, _painted, 1),
            f"web, {TOGETHER} at once": lambda: _speed(front, _ordered, TOGETHER),
            "streamed": lambda: _speed(served, _streamed(0), TOGETHER),
            "with previews": lambda: _speed(served, _streamed(PREVIEWS), TOGETHER),
        }
        # By turns: the machine's speed varies from minute to minute.
        rounds = [{side: speed() for side, speed in sides.items()} for _ in range(1 + ROUNDS)][1:]
        slots = _slots(served)

    def ratio(side: str, to: str) -> float:
        return statistics.median(one[side] / one[to] for one in rounds)

    print(f"\n{model.name}, {slots} slots, medians of {ROUNDS}; pictures/s, and the ratio to the pipeline's batch")
    for side in list(sides)[:5]:
        print(f"{side:<24}{statistics.median(one[side] for one in rounds):8.2f}{ratio(side, floor):8.2f}")
    gain = ratio(f"predictor, {TOGETHER} at once", "predictor, one by one")
    print(f"at once, of one by one: {gain:.2f}; the pipeline's batch: {ratio(floor, 'pipeline, one by one'):.2f}")
    print(f"{PREVIEWS} previews of each: {100 * (1 - ratio('with previews', 'streamed')):.1f} % of the pictures/s")
    with predictor(model, "auto", 1) as served, web(served.url, "image") as front:
        report_leaving({"predictor": (served, _PAINTING), "web": (front, _ORDER)}, LONG, "a step")


class _Raw:
    """The pipeline itself, asked as the server asks it."""

    def __init__(self, model: Path) -> None:
        from diffusers import DiffusionPipeline

        from predictor.pictures.pipeline import load_pipeline

        self._settings = load_pipeline(str(model), "auto", "auto", lambda _: None)
        self._pipe: Any = DiffusionPipeline.from_pretrained(model, use_safetensors=True)
        self._pipe.set_progress_bar_config(disable=True)

    def speed(self, count: int) -> float:
        """Pictures a second, `count` in a batch."""
        self._draw(count)  # a thread's first run makes its pool of threads; and see _speed
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
        async with httpx.AsyncClient(base_url=server.url, timeout=600, trust_env=False, verify=PLAIN) as client:
            await draw(client, 0)  # the side before has had the processor's caches
            begun = time.perf_counter()
            await asyncio.gather(*(draw(client, number) for number in range(count)))
            return count / (time.perf_counter() - begun)

    return uvloop.run(together())


def _slots(server: Server) -> int:
    metrics = httpx.get(server.url + "/metrics", trust_env=False, verify=PLAIN).text
    [number] = re.findall(r"^shangcai_slots (.+)$", metrics, re.MULTILINE)
    return int(float(number))


def _prompt(number: int) -> str:
    return "画一只" + "猫狗鸟马牛羊猪鸡"[number]


async def _painted(client: httpx.AsyncClient, number: int) -> None:
    answer = await client.post(IMAGES, json={"model": "m", "prompt": _prompt(number), "seed": number})
    assert answer.raise_for_status().json()["data"][0]["b64_json"]


async def _ordered(client: httpx.AsyncClient, number: int) -> None:
    body = {"prompt": _prompt(number), "seed": number}
    answer = await client.post("/generate", json=body, headers={"Accept": "image/png"})
    assert answer.raise_for_status().content.startswith(b"\x89PNG")


def _streamed(previews: int) -> Draw:
    async def draw(client: httpx.AsyncClient, number: int) -> None:
        body = {"model": "m", "prompt": _prompt(number), "seed": number, "stream": True, "partial_images": previews}
        answer = await client.post(IMAGES, json=body)
        assert answer.raise_for_status().text.count("partial_image_index") == previews

    return draw


def _painting(number: int, steps: int, stream: bool) -> dict[str, Any]:
    return {"model": "m", "prompt": _prompt(number), "steps": steps, "stream": stream, "progress": True}


def _order(number: int, steps: int, stream: bool) -> dict[str, Any]:
    return {"prompt": _prompt(number), "steps": steps, "stream": stream}


_PAINTING = Shape(IMAGES, _painting, '"image_generation.started"', '"image_generation.progress"')
_ORDER = Shape("/generate", _order, '"state":"running"', '"step":')
