"""The official clients and two frameworks, with their defaults, against models that are asleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.openai.answers import texts
from tests.support.openai.deployment import Deployment
from tests.support.openai.javascript_client import JavaScriptClient, run_script

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
DEADLINE = 120.0
IMPATIENT = {"X-Request-Timeout": "0.25"}
"""Enough for two tokens of a model that is awake, and not for one that is asleep."""
MESSAGES: Any = [{"role": "user", "content": "春雨"}]


@pytest.fixture
def client(asleep: Deployment) -> openai.OpenAI:
    return openai.OpenAI(base_url=asleep.url, api_key="none")


def test_a_stream_from_zero_says_what_it_waits_for_and_then_has_chunks(asleep: Deployment) -> None:
    body = {"model": "poet", "messages": MESSAGES, "max_tokens": 5, "stream": True}
    answer = httpx.post(f"{asleep.url}/chat/completions", json=body, timeout=DEADLINE)
    comments, data, _ = answer.text.partition("data: ")
    assert '"state":"asleep"' in comments.splitlines()[0]
    assert '"state":"waking"' in comments
    assert data


def test_the_client_streams_from_zero(client: openai.OpenAI) -> None:
    pieces = client.chat.completions.create(model="poet", messages=MESSAGES, max_tokens=5, seed=1, stream=True)
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    whole = client.chat.completions.create(model="poet", messages=MESSAGES, max_tokens=5, seed=1)
    assert streamed == whole.choices[0].message.content != ""


def test_a_chat_completion_waits_for_its_model(client: openai.OpenAI, asleep: Deployment) -> None:
    answer = client.chat.completions.with_raw_response.create(model="poet", messages=MESSAGES, max_tokens=5)
    assert answer.retries_taken == 0
    assert answer.parse().choices[0].message.content
    assert asleep.states == {"poet": "ready", "painter": "asleep", "caller": "asleep"}


def test_the_client_tries_again_by_itself_where_a_model_takes_longer_to_wake_than_it_waits(
    client: openai.OpenAI,
) -> None:
    create = client.chat.completions.with_raw_response.create
    answer = create(model="poet", messages=MESSAGES, max_tokens=2, extra_headers=IMPATIENT)
    assert 1 <= answer.retries_taken <= 2
    assert answer.parse().choices[0].message.content


def is_whole(answers: dict[str, Any]) -> bool:
    """Whether a framework has got all that it was asked for."""
    trip: dict[str, set[Any]] = {"city": {"杭州", "苏州"}, "days": set(range(1, 10))}
    [call] = answers["calls"]
    trips = [answers["object"], call["input"]]
    return (
        bool(answers["text"] and answers["streamed"])
        and answers["tokens"] > 8
        and call["toolName"].lower() == "trip"
        and all(one.keys() == trip.keys() and all(one[name] in trip[name] for name in trip) for one in trips)
    )


def test_langchain(asleep: Deployment, pip_installed: Callable[[Path], Path]) -> None:
    folder = pip_installed(HERE / "langchain" / "requirements.txt")
    done = subprocess.run(
        [sys.executable, str(HERE / "langchain" / "chat.py"), asleep.url],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert is_whole(answers["chat"])
    assert is_whole(answers["responses"])


def test_the_vercel_ai_sdk(asleep: Deployment, programs: Path) -> None:
    answers = run_script(programs, "vercel.mjs", asleep.url)
    assert is_whole(answers["chat"])
    assert is_whole(answers["responses"])


def test_the_client_for_javascript(asleep: Deployment, programs: Path) -> None:
    body: dict[str, Any] = {"model": "poet", "messages": MESSAGES, "max_tokens": 5, "seed": 1}
    with closing(JavaScriptClient(asleep.url, programs)) as client:
        pieces = client.call("chat.completions.create", {**body, "stream": True})["answer"]
        whole = client.call("chat.completions.create", body)["answer"]
        asleep.sleep()
        impatient = client.call("chat.completions.create", {**body, "max_tokens": 2, "extra_headers": IMPATIENT})
    assert texts(pieces) == texts(whole) != [""]
    assert texts(impatient["answer"]) != [""]
