"""Requests for texts as tasks: their turns as chat templates read them."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from contract.request import TextPrompt
from contract.texts.messages import ChatMessage, MessageToolCall
from contract.texts.tools import ChosenTool, Tool
from predictor.engine.tasks import Message, OfferedTools, TextTask, ToolCall
from predictor.protocols.structure import structure_of


def text_task(request: TextPrompt) -> TextTask:
    """The text that is asked for. `raw` prompts go to the model as they are."""
    prompt: str | tuple[Message, ...]
    if request.raw:
        assert request.prompt is not None
        prompt = request.prompt
    else:
        prompt = _turns(request)
    effort = {} if request.reasoning_effort is None else {"reasoning_effort": request.reasoning_effort}
    return TextTask(
        prompt,
        request,
        thinking=request.thinks,
        template=effort | (request.chat_template_kwargs or {}),
        field="prompt" if request.messages is None else "messages",
        structure=structure_of(request),
        tools=_offered(request) if request.offers_tools else None,
    )


def _offered(request: TextPrompt) -> OfferedTools:
    tools, choice = request.tools or [], request.tool_choice
    chosen = choice.function.name if isinstance(choice, ChosenTool) else None
    return OfferedTools(
        described=tuple(_described(tool) for tool in tools),
        callable=tuple(tool.function for tool in tools if chosen in (None, tool.function.name)),
        required=choice == "required" or chosen is not None,
        several=request.parallel_tool_calls is not False and chosen is None,
    )


def _described(tool: Tool) -> dict[str, Any]:
    """As chat templates read it: some fail where a function has no parameters."""
    function = tool.function
    described = {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or _NO_PARAMETERS,
    }
    return {"type": "function", "function": described}


_NO_PARAMETERS = {"type": "object", "properties": {}}


def _turns(request: TextPrompt) -> tuple[Message, ...]:
    before = () if request.system is None else (Message(role="system", content=request.system),)
    if request.messages is None:
        assert request.prompt is not None
        return (*before, Message(role="user", content=request.prompt))
    return (*before, *map(_turn, request.messages))


def _turn(message: ChatMessage) -> Message:
    # Chat templates know "system"; OpenAI renamed that role for its newer models.
    turn = Message(role="system" if message.role == "developer" else message.role, content=message.text)
    if reasoning := message.reasoning_content or message.reasoning:
        turn["reasoning_content"] = reasoning
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.role == "tool":
        turn["tool_call_id"] = message.tool_call_id or ""
        if message.name:  # which some templates know a tool by
            turn["name"] = message.name
    return turn


def _call(call: MessageToolCall) -> ToolCall:
    function = {"name": call.function.name, "arguments": from_json(call.function.arguments or "{}")}
    return ToolCall(type="function", id=call.id or "", function=function)
