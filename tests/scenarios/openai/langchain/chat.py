"""LangChain's ChatOpenAI, told nothing but an address. Its packages are on PYTHONPATH; the argument is the address."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


class Trip(BaseModel):
    """Plans a trip."""

    city: Literal["杭州", "苏州"]
    days: Annotated[int, Field(ge=1, le=9)]


def ask(**settings: Any) -> dict[str, Any]:
    """What it gives, over chat completions or over responses."""
    common = {"base_url": sys.argv[1], "api_key": "none", **settings}
    poet = ChatOpenAI(model="poet", max_completion_tokens=8, **common)
    caller = ChatOpenAI(model="caller", **common)
    whole = poet.invoke("春雨")
    calling = caller.bind_tools([Trip], tool_choice="any", parallel_tool_calls=False)
    return {
        "text": whole.text,
        "tokens": whole.usage_metadata["total_tokens"],
        "streamed": "".join(piece.text for piece in poet.stream("春雨")),
        "object": caller.with_structured_output(Trip).invoke("春雨").model_dump(),
        "calls": [{"toolName": call["name"], "input": call["args"]} for call in calling.invoke("春雨").tool_calls],
    }


print(json.dumps({"chat": ask(), "responses": ask(use_responses_api=True)}))
