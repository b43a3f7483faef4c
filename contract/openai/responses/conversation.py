"""A conversation of items as the turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contract.openai.responses.items import FunctionCallItem, FunctionOutputItem, Item, MessageItem
from contract.texts.messages import joined


def turns_of(items: Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """The messages of a GenerationRequest. What an assistant has thought, said and called in a row is one turn of its
    own, and `instructions` stand in one system message with what the conversation begins with of that kind: chat
    templates know no other order."""
    turns: list[dict[str, Any]] = []
    thought = ""
    for item in items:
        match item:
            case MessageItem(role="assistant"):
                turn: dict[str, Any] = {"role": "assistant", "content": joined(item.content)}
                turns.append(turn | ({"reasoning_content": thought} if thought else {}))
                thought = ""
            case MessageItem():
                turns.append({"role": item.role, "content": joined(item.content)})
                thought = ""
            case FunctionCallItem():
                if not (turns and turns[-1]["role"] == "assistant") or thought:
                    turns.append({"role": "assistant"} | ({"reasoning_content": thought} if thought else {}))
                    thought = ""
                turns[-1].setdefault("tool_calls", []).append(_call(item))
            case FunctionOutputItem():
                turns.append({"role": "tool", "tool_call_id": item.call_id, "content": joined(item.output)})
                thought = ""
            case _:
                thought += item.text
    return _instructed(turns, instructions)


def _call(item: FunctionCallItem) -> dict[str, Any]:
    return {"id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}


def _instructed(turns: list[dict[str, Any]], instructions: str | None) -> list[dict[str, Any]]:
    if not instructions:
        return turns
    if turns and turns[0]["role"] in ("system", "developer"):
        first, *turns = turns
        instructions = f"{instructions}\n\n{first['content']}"
    return [{"role": "system", "content": instructions}, *turns]
