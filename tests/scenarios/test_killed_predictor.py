"""A predictor that is killed in the middle costs its clients time and no text."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from tests.support.processes import ROOT
from tests.support.run import Run, Start
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

POET = ROOT / "models" / "poet"
DEADLINE = 240.0
TOKENS = 96


@dataclass
class Watched:
    """What the client of one stream has seen; a tenth of them ask for JSON instead."""

    seed: int
    pieces: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    end: tuple[str, dict[str, Any]] = ("", {})

    @property
    def body(self) -> dict[str, Any]:
        return {"prompt": "写一首关于春雨的诗", "seed": self.seed, "max_tokens": TOKENS, "temperature": 1.0}

    async def ask(self, client: httpx2.AsyncClient, *, live: bool) -> None:
        if not live:
            answer = await client.post("/generate", json=self.body)
            self.end = ("result" if answer.is_success else "error", answer.json())
            self.pieces = [answer.json().get("text", "")]
            return
        name = ""
        async with client.stream("POST", "/generate", json={**self.body, "stream": True}) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                kind, _, value = line.partition(": ")
                if kind == "event":
                    name = value
                elif kind == "data":
                    self._take(name, json.loads(value))

    def _take(self, name: str, data: dict[str, Any]) -> None:
        if name == "token":
            self.pieces.append(data["text"])
            self.states.append(name)
        elif name == "status":
            self.states.append(data["state"])
        else:
            self.end = (name, data)


async def kill_in_the_middle(run: Run, streams: list[Watched], kills: int) -> None:
    """Kill the predictor each time that a good part of the texts that are left has come."""
    whole = sum(len(stream.pieces) for stream in streams)
    for _ in range(kills):
        wanted = whole + 5 * min(len(streams), 10)
        while (whole := sum(len(stream.pieces) for stream in streams)) < wanted:
            if all(stream.end[0] for stream in streams):
                return
            await asyncio.sleep(0.005)
        # What it has sent before the last kill may have come only now, before there is another one.
        await eventually(lambda: "predictor" in run.children(), "another predictor runs")
        os.kill(run.children()["predictor"], signal.SIGKILL)


@pytest.mark.parametrize(("count", "kills"), [(10, 1), pytest.param(100, 3, marks=pytest.mark.nightly)])
async def test_every_stream_is_whole_and_what_it_is_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, count: int, kills: int
) -> None:
    monkeypatch.setenv("MAX_IN_FLIGHT", "200")
    monkeypatch.setenv("PREDICTOR_MAX_WAITING", "200")
    run = start("--model", str(POET))
    run.wait_until_ready()
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=run.url, timeout=DEADLINE, trust_env=False, limits=limits) as client:
        alone = [Watched(seed) for seed in range(count)]
        for one in alone:
            await one.ask(client, live=False)
        streams = [Watched(seed) for seed in range(count)]
        asked = [asyncio.create_task(one.ask(client, live=one.seed % 10 != 9)) for one in streams]
        await kill_in_the_middle(run, streams, kills)
        await asyncio.gather(*asked)
    run.wait_for("its predictor was ended by SIGKILL")
    for stream, solo in zip(streams, alone, strict=True):
        assert stream.end[0] == "result", (stream.end, stream.states)
        assert "".join(stream.pieces) == stream.end[1]["text"] == solo.end[1]["text"]
    assert any("waking" in stream.states[stream.states.index("token") :] for stream in streams if stream.seed % 10 != 9)
