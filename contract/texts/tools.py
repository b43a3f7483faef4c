"""Functions that a model may ask its client to call."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from contract.fields import StrictModel
from contract.limits import TOOL_BYTES, TOOLS

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


def _of_object(parameters: dict[str, Any]) -> dict[str, Any]:
    kind = parameters.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise ValueError("must be the schema of an object, of the type object: arguments have names")
    return parameters


Parameters = Annotated[dict[str, Any], AfterValidator(_of_object)]


class Function(StrictModel):
    """`parameters` is the JSON Schema of its arguments, an object; without one it takes none in particular."""

    name: FunctionName
    description: str | None = None
    parameters: Parameters | None = None
    strict: bool | None = None  # arguments are held to their schema in any case


class Tool(StrictModel):
    """OpenAI's shape. Functions alone can be called from here."""

    type: Literal["function"] = "function"
    function: Function


class ChosenFunction(StrictModel):
    name: FunctionName


class ChosenTool(StrictModel):
    """The one function that is to be called."""

    type: Literal["function"] = "function"
    function: ChosenFunction


def _bounded(tools: list[Tool]) -> list[Tool]:
    names = [tool.function.name for tool in tools]
    if len(names) != len(set(names)):
        raise ValueError("must have different names")
    if len(json.dumps([tool.model_dump(exclude_none=True) for tool in tools])) > TOOL_BYTES:
        raise ValueError(f"may have at most {TOOL_BYTES} bytes together")
    return tools


Tools = Annotated[list[Tool], Field(max_length=TOOLS), AfterValidator(_bounded)]
ToolChoice = Literal["none", "auto", "required"] | ChosenTool


class CalledFunction(StrictModel):
    """`arguments` is the JSON of an object."""

    name: str
    arguments: str


class ToolCall(StrictModel):
    """A call that the model asks for."""

    id: str = Field(description="What the tool's answer is to name as its `tool_call_id`.")
    type: Literal["function"] = "function"
    function: CalledFunction
