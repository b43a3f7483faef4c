"""What an engine is asked for: a text or pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from contract.callers import DEFAULT_CALLER
from contract.request import Painting
from contract.texts.sampling import Sampling


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
class TextTask:
    """A text to write. A conversation goes through the model's chat template, a plain string as it is.

    `seconds` is how long the client waits for the end; None is without a limit. `thinking` asks for reasoning before
    the answer, or for none; None leaves it to the deployment. `template` are further variables of the chat template.
    `field` is what the client calls a conversation: its member of the request. `caller` is who asks.
    What texts of the same caller and `cache_salt` have left in the cache need not be computed again; None: nothing.
    """

    prompt: str | tuple[Message, ...]
    sampling: Sampling
    seconds: float | None = None
    thinking: bool | None = None
    template: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    field: str = "messages"
    caller: str = DEFAULT_CALLER
    cache_salt: str | None = None


@dataclass(frozen=True, slots=True)
class PictureTask:
    """Pictures to paint, with so many `previews` of each on the way. `seconds` and `caller` as for a text."""

    prompt: str
    painting: Painting
    previews: int = 0
    seconds: float | None = None
    caller: str = DEFAULT_CALLER


Task = TextTask | PictureTask
