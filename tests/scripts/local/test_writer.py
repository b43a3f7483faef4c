"""The writer: fetched by scripts/run, asleep until it is asked, converted when it wakes up for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest

from tests.support.run import CACHES, DEADLINE, Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with closing(Run(variables={"PREDICTOR_CACHE_FOLDER": str(CACHES / "shangcai")})) as run:
        run.wait_until_ready()
        yield run


def generate(run: Run, **body: Any) -> dict[str, Any]:
    response = httpx2.post(f"{run.url}/generate", json={"seed": 1, **body}, timeout=DEADLINE)
    result: dict[str, Any] = response.raise_for_status().json()
    return result


def states(run: Run) -> dict[str, str]:
    models = httpx2.get(f"{run.url}/status").json()["models"]
    return {model["name"]: model["state"] for model in models}


def test_it_sleeps_until_it_is_asked_and_then_writes_an_article(run: Run) -> None:
    assert states(run) == {"poet": "ready", "painter": "ready", "writer": "asleep"}
    result = generate(run, prompt="Write a short article about containers", max_tokens=60)
    assert result["model"] == "writer"
    assert result["usage"]["completion_tokens"] == 60
    assert "container" in result["text"].lower()
    assert states(run)["writer"] == "ready"


def test_a_conversation_of_five_turns_is_remembered(run: Run) -> None:
    messages, lengths = [], []
    for question in ("My name is Ada.", "What is my name?", "Name a fruit.", "And a colour?", "What is my name?"):
        messages.append({"role": "user", "content": question})
        result = generate(run, messages=messages, model="writer", max_tokens=16, temperature=0)
        messages.append({"role": "assistant", "content": result["text"]})
        lengths.append(result["usage"]["prompt_tokens"])
    assert lengths == sorted(set(lengths))
    assert "Ada" in messages[3]["content"]


@pytest.mark.parametrize("prompt", ["写一首关于CPU的现代诗", "写一篇关于容器的文章", "Write a poem about the sea"])
def test_chinese_and_verse_are_the_poets(run: Run, prompt: str) -> None:
    assert generate(run, prompt=prompt)["model"] == "poet"
