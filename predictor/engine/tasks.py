"""What an engine is asked for: a text or pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from contract.callers import DEFAULT_CALLER
from contract.request import Painting
from contract.texts.sampling import Sampling
from contract.texts.tools import Function


class ToolCall(TypedDict):
    """A call that an assistant has asked for: `function` has its name and its arguments, an object."""

    type: str
    id: str
    function: dict[str, Any]


class Message(TypedDict):
    """One turn of a conversation, as chat templates read it. `role` is system, user, assistant or tool; `name` is a
    tool's."""

    role: str
    content: str
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A text that is the JSON of a value which this schema allows, without white space but for a space after , and :"""

    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Regex:
    """A text all of which this expression matches."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these texts."""

    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlacedSchema:
    """A client's schema in a `rule` of one line; `field` is what the client calls it."""

    schema: Mapping[str, Any]
    field: str
    rule: str


@dataclass(frozen=True, slots=True)
class Lark:
    """A text of the rule `answer`, in llguidance's dialect of Lark: what the other three cannot say, such as a tag,
    then JSON of a schema, then a tag, or any text until a tag comes.

    `rules` defines `answer` and what it needs, and neither `start` nor options, such as

        answer: "<tool_call>\\n" call "\\n</tool_call>"
        call: %json {"type": "object", "x-guidance": {"whitespace_flexible": false}}

    A special token stands there as its name, <|python_tag|>, and any other text in quotes. Who writes the rules answers
    for them: clients may give schemas and names in them, and no rules. `schemas` are those of clients.
    """

    rules: str
    schemas: tuple[PlacedSchema, ...] = ()


@dataclass(frozen=True, slots=True)
class Structure:
    """What shape a text has to have: the answer, that is, where the model reasons first. `field` is what the client
    calls it, for problems."""

    form: JsonSchema | Regex | Choice | Lark
    field: str


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """Functions that a text may call: all of them are `described` to the model, in OpenAI's shape, and those in
    `callable` it may call. Where calls are `required` it writes nothing else; `several` at once, or one."""

    described: tuple[dict[str, Any], ...]
    callable: tuple[Function, ...]
    required: bool = False
    several: bool = True


@dataclass(frozen=True, slots=True)
class TextTask:
    """A text to write. A conversation goes through the model's chat template, a plain string as it is.

    `seconds` is how long the client waits for the end; None is without a limit. `thinking` asks for reasoning before
    the answer, or for none; None leaves it to the deployment. `template` are further variables of the chat template.
    `field` is what the client calls a conversation: its member of the request. `caller` is who asks.
    `structure` is the shape that the text is held to; None leaves it free.
    `tools` need a chat template that takes them.
    What texts of the same caller and `cache_salt` have left in the cache need not be computed again; None: nothing.
    """

    prompt: str | tuple[Message, ...]
    sampling: Sampling
    seconds: float | None = None
    thinking: bool | None = None
    template: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    field: str = "messages"
    structure: Structure | None = None
    caller: str = DEFAULT_CALLER
    cache_salt: str | None = None
    tools: OfferedTools | None = None


@dataclass(frozen=True, slots=True)
class PictureTask:
    """Pictures to paint, with so many `previews` of each on the way. `seconds` and `caller` as for a text."""

    prompt: str
    painting: Painting
    previews: int = 0
    seconds: float | None = None
    caller: str = DEFAULT_CALLER


Task = TextTask | PictureTask
