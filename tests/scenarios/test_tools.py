"""Functions that a model may call, from a request to web through its predictor: a random one, held to their format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import openai
import pytest

from predictor.engine.events import ToolCallPiece
from predictor.engine.tasks import TextTask
from tests.support.processes import ROOT, free_port, listening
from tests.support.scripted_engine import ScriptedEngine
from tests.support.serving import serving
from tests.support.texts.tool_model import CITY, DAYS, save_tool_model
from tests.support.waiting import SECONDS, eventually, wait_until
from web.app import create_app
from web.settings import Settings

TRIP = {
    "type": "function",
    "function": {
        "name": "Trip",
        "description": "A trip.",
        "parameters": {"properties": {"city": CITY, "days": DAYS}, "required": ["city", "days"], "type": "object"},
        "strict": True,
    },
}
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "杭州三天"}],
    "tools": [TRIP],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}
"""What LangChain sends for `bind_tools([Trip], tool_choice="any", parallel_tool_calls=False, strict=True)`."""


def check(calls: list[dict[str, Any]]) -> None:
    """One call that its schema allows."""
    [call] = calls
    arguments = json.loads(call["function"]["arguments"])
    assert (call["type"], call["function"]["name"], call["id"][:5]) == ("function", "Trip", "call_")
    assert arguments.keys() == {"city", "days"}
    assert (arguments["city"] in CITY["enum"], arguments["days"] in range(1, 10)) == (True, True)


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n", 1) for block in text.removesuffix("\n\n").split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def told(events: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The calls of a stream's pieces."""
    calls: dict[int, dict[str, Any]] = {}
    for name, data in events:
        if name == "tool_call":
            new = {"id": data.get("id"), "type": "function", "function": {"name": data.get("name"), "arguments": ""}}
            calls.setdefault(data["index"], new)["function"]["arguments"] += data["arguments"]
    return list(calls.values())


# Through web to a predictor whose engine is scripted


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[ScriptedEngine, httpx2.AsyncClient]]:
    from predictor.protocols.kserve_text import TextModel

    engine = ScriptedEngine()
    engine.load_gate.set()
    model = TextModel("caller", engine)
    async with serving(model) as (_, url), httpx2.AsyncHTTPTransport(verify=False) as to_predictor:
        await eventually(lambda: model.startup.ready)
        app = create_app(Settings.model_validate({"models": {"caller": url}}), to_predictor)
        to_web = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=to_web, base_url="http://web.test", timeout=SECONDS) as client:
            yield engine, client


def enqueue_call(engine: ScriptedEngine) -> None:
    pieces = [ToolCallPiece(0, '{"city": ', "call_1", "Trip"), ToolCallPiece(0, '"杭州", "days": 3}')]
    engine.enqueue(*pieces, finish_reason="tool_calls")


@pytest.mark.parametrize("stream", [False, True])
async def test_langchains_request_reaches_the_engine_and_its_call_comes_back(
    scripted: tuple[ScriptedEngine, httpx2.AsyncClient], stream: bool
) -> None:
    engine, client = scripted
    enqueue_call(engine)
    answer = await client.post("/generate", json=ASKED | {"stream": stream})

    result = events_of(answer.text)[-1][1] if stream else answer.json()
    check(result["tool_calls"])
    assert (result["text"], result["finish_reason"]) == ("", "tool_calls")
    if stream:
        assert told(events_of(answer.text)) == result["tool_calls"]
    [task] = engine.tasks
    assert isinstance(task, TextTask)
    assert task.tools is not None
    assert (task.tools.required, task.tools.several) == (True, False)
    assert [function.name for function in task.tools.callable] == ["Trip"]
    assert task.tools.callable[0].parameters == TRIP["function"]["parameters"]  # type: ignore[index]


async def test_openais_route_on_web_answers_langchain_likewise(
    scripted: tuple[ScriptedEngine, httpx2.AsyncClient],
) -> None:
    engine, client = scripted
    enqueue_call(engine)
    [choice] = (await client.post("/v1/chat/completions", json=ASKED | {"model": "caller"})).json()["choices"]

    check(choice["message"]["tool_calls"])
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


async def test_a_call_and_its_answer_go_back_into_the_conversation(
    scripted: tuple[ScriptedEngine, httpx2.AsyncClient],
) -> None:
    engine, client = scripted
    enqueue_call(engine)
    calls = (await client.post("/generate", json=ASKED)).json()["tool_calls"]
    engine.enqueue("好")
    turns = [
        *ASKED["messages"],
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": "booked"},
    ]
    answer = await client.post("/generate", json={"messages": turns, "tools": [TRIP], "system": "短"})

    assert answer.json()["text"] == "好"
    prompt = engine.tasks[1].prompt
    assert [turn["role"] for turn in prompt if not isinstance(turn, str)] == ["system", "user", "assistant", "tool"]
    asked: Any = prompt[2]
    assert asked["tool_calls"][0]["function"] == {"name": "Trip", "arguments": {"city": "杭州", "days": 3}}


# With a real model


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Of a predictor and of web in front of it, each a process."""
    url = f"http://127.0.0.1:{free_port()}"
    folder = save_tool_model(tmp_path_factory.mktemp("caller"))
    command = [sys.executable, "-m", "predictor", "--model", str(folder), "--name", "caller"]
    command += ["--host", "127.0.0.1", "--port", url.rpartition(":")[2], "--max-length", "1024"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as predictor:
        try:
            wait_until(lambda: _ready(url), "the predictor is ready", 120)
            models = json.dumps({"poet": {"url": url, "upstream_model": "caller"}})
            command = [sys.executable, "-m", "web", "--host", "127.0.0.1", "--port", "0"]
            environment = os.environ | {"MODELS": models}
            with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as web:
                try:
                    yield url, listening(web)
                finally:
                    web.terminate()
                    web.communicate()
        finally:
            predictor.terminate()


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v2/health/ready", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.slow
def test_langchains_request_through_both_processes(urls: tuple[str, str]) -> None:
    with httpx2.Client(base_url=urls[1], timeout=SECONDS, trust_env=False) as client:
        for seed in range(5):
            result = client.post("/generate", json=ASKED | {"seed": seed}).json()
            check(result["tool_calls"])
            assert (result["text"], result["finish_reason"]) == ("", "tool_calls")
        streamed = events_of(client.post("/generate", json=ASKED | {"seed": 4, "stream": True}).text)
        assert told(streamed) == streamed[-1][1]["tool_calls"] == result["tool_calls"]


@pytest.mark.slow
@pytest.mark.parametrize("of_web", [False, True], ids=["predictor", "web"])
def test_openais_client_streams_a_call(urls: tuple[str, str], of_web: bool) -> None:
    url, model = (f"{urls[1]}/v1", "poet") if of_web else (f"{urls[0]}/openai/v1", "caller")
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        create: Any = client.chat.completions.create
        whole = create(model=model, **ASKED, seed=1).choices[0]
        chunks = list(create(model=model, **ASKED, seed=1, stream=True))

    message = whole.message.model_dump()
    assert (message["content"], whole.finish_reason) == (None, "tool_calls")
    check(message["tool_calls"])
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert (pieces[0].id, pieces[0].function.name) == (message["tool_calls"][0]["id"], "Trip")
    arguments = "".join(piece.function.arguments for piece in pieces)
    assert arguments == message["tool_calls"][0]["function"]["arguments"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
