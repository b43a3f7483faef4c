"""The official clients and two frameworks, with their defaults, against models that are asleep; and what docs/openai.md
says of every parameter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.support.openai.answers import texts
from tests.support.openai.deployment import Deployment
from tests.support.openai.impatience import impatient
from tests.support.openai.javascript_client import JavaScriptClient, run_script
from tests.support.openai.probe import MethodProbes, Probe
from tests.support.openai.record import FILE
from tests.support.openai.recorder import METHODS, Recorder
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
DEADLINE = 180.0
STRIDE = 37
"""One in so many of what was recorded is tried again with each change: an odd number, which meets both clients."""
MESSAGES: Any = [{"role": "user", "content": "春雨"}]


@pytest.fixture
def client(asleep: Deployment) -> openai.OpenAI:
    return openai.OpenAI(base_url=asleep.url, api_key="none")


def test_a_stream_from_zero_says_what_it_waits_for_and_then_has_chunks(asleep: Deployment) -> None:
    body = {"model": "poet", "messages": MESSAGES, "max_tokens": 5, "stream": True}
    lines: list[str] = []
    with (
        asleep.held() as release,
        httpx2.stream("POST", f"{asleep.url}/chat/completions", json=body, timeout=DEADLINE) as answer,
    ):
        for line in answer.iter_lines():
            lines.append(line)
            if '"state":"waking"' in line:
                release()
    comments, data, _ = "\n".join(lines).partition("data: ")
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
    awake = {"poet": "ready", "painter": "asleep", "caller": "asleep"}
    wait_until(lambda: asleep.states == awake, "the poet alone is awake")


def test_the_client_tries_again_by_itself_where_a_model_takes_longer_to_wake_than_it_waits(
    asleep: Deployment,
) -> None:
    with impatient(asleep) as (url, statuses), openai.OpenAI(base_url=url, api_key="none") as client:
        create = client.chat.completions.with_raw_response.create
        answer = create(model="poet", messages=MESSAGES, max_tokens=2)
    assert answer.retries_taken == 1
    assert statuses[0] >= 500
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
    with impatient(asleep) as (url, statuses), closing(JavaScriptClient(url, programs)) as client:
        again = client.call("chat.completions.create", {**body, "max_tokens": 2})["answer"]
    assert texts(pieces) == texts(whole) != [""]
    assert texts(again) != [""]
    assert (statuses[0] >= 500, statuses[1:]) == (True, [200])


def recorded() -> Iterator[tuple[MethodProbes, Probe, str, str]]:
    """Each value that was tried with a client, and what came of it."""
    methods = {method["python"] or method["javascript"]: method for method in json.loads(FILE.read_text())["methods"]}
    for method in METHODS:
        entry = methods[method.name]
        for probe in method.probes if entry["offered"] else method.probes[:1]:
            values = [
                one
                for one in entry["parameters"].get(probe.parameter, [])
                if (one["value"], one.get("with", {})) == (probe.value, dict(probe.more))
            ]
            for language in filter(method.named, ("python", "javascript")):
                state = values[0].get(language) if entry["offered"] else "not offered"
                if state is not None:
                    yield method, probe, language, state


@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.nightly)])
def test_what_is_recorded_is_what_happens(deployment: Deployment, programs: Path, stride: int) -> None:
    changed = []
    with closing(Recorder(deployment, programs)) as recorder:
        for method, probe, language, state in list(recorded())[::stride]:
            found = recorder.state(method, probe, language)
            if found != state:
                changed.append(f"{language} {method.name} {probe.parameter}={probe.value!r}: {found}, and not {state}")
    assert changed == []
