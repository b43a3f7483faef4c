"""The same request asks the engine for the same, whichever way it gets to the predictor."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from contract.texts.sampling import Sampling
from predictor.engine.events import ToolCallPiece
from predictor.engine.tasks import TextTask
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import SECONDS
from tests.support.web.served_web import listening
from web.app import create_app
from web.settings import Settings

CALL = {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "杭州"}'}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CONVERSATION = {
    "system": "短",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "月"}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_0", "content": "雨"},
        {"role": "user", "content": "再"},
    ],
    "seed": 7,
    "top_k": 3,
    "stop": ["完"],
}
TOOLS = {
    "tools": [{"type": "function", "function": {"name": "weather", "description": "晴?", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}}
EFFORT = {"reasoning_effort": "low", "chat_template_kwargs": {"tone": "mild"}}


async def generated(predictor: str, request: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The answer of a web with these settings."""
    app = create_app(Settings.model_validate({"models": {"poet": predictor}, "grace_seconds": 1, **settings}))
    async with listening(app) as web, httpx2.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        answer = await client.post(f"{web}/generate", json=request)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def predicted(predictor: str, request: dict[str, Any]) -> dict[str, Any]:
    """KServe's V1 protocol."""
    async with httpx2.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        answer = await client.post(f"{predictor}/v1/models/poet:predict", json={"instances": [request]})
    assert answer.status_code == 200, answer.text
    [prediction] = answer.json()["predictions"]
    return dict(prediction)


def asked(task: TextTask) -> dict[str, Any]:
    """All that the text depends on; variables of the template as the engine puts them together."""
    switch = {"enable_thinking": task.thinking, "thinking": task.thinking}
    return {
        "prompt": task.prompt,
        "sampling": {name: getattr(task.sampling, name) for name in Sampling.model_fields},
        "thinking": task.thinking,
        "template": {**switch, **task.template},
        "structure": task.structure,
        "tools": task.tools,
    }


@pytest.mark.parametrize("fields", [TOOLS, FORMAT | EFFORT], ids=["tools", "format"])
async def test_a_conversation_is_the_same_by_every_way(
    predictor: str, engine: ScriptedEngine, fields: dict[str, Any]
) -> None:
    request = CONVERSATION | fields
    for _ in range(3):
        if "tools" in fields:
            engine.enqueue(ToolCallPiece(0, "{}", "call_1", "weather"), finish_reason="tool_calls")
        else:
            engine.enqueue('{"city": ', '"杭州"}')
    answers = [
        await generated(predictor, request, dispatch="rest"),
        await generated(predictor, request, dispatch="events", k_sink=predictor),
        await predicted(predictor, request),
    ]
    first, *others = [asked(task) for task in engine.tasks]
    assert others == [first, first]
    turns: Any = first["prompt"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "user"]
    assert turns[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "杭州"}}
    assert (first["tools"] is None, first["structure"] is None) == ("tools" not in fields, "tools" in fields)
    told = [[answer[name] for name in ("text", "finish_reason")] for answer in answers]
    assert told == [["", "tool_calls"] if "tools" in fields else ['{"city": "杭州"}', "stop"]] * 3
